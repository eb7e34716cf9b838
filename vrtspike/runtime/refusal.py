"""Find our own error inside those that Ray wraps around it, and set up logging."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator

from vrtspike.errors import ResourceError, VrtSpikeError, one_line
from vrtspike.runtime.ray_session import in_job
from vrtspike.storage.atomic import FIXES


def find_refusal(error: BaseException) -> VrtSpikeError | None:
    """Find our own error, also inside the ones that Ray wraps around a worker's; or make one of
    what a disk or the system refuses."""
    refused: VrtSpikeError | None = None
    for found in _all_of(error):
        # Ray's task errors inherit from the cause's class too; the cause itself has our message.
        cause = getattr(found, "cause", None)
        if isinstance(found, VrtSpikeError) and not isinstance(cause, VrtSpikeError):
            return found
        if refused is None and not isinstance(cause, BaseException):
            refused = _of_the_system(found)
    return refused


def _all_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that led to it, nearest first."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        found = waiting.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting.extend([getattr(found, "cause", None), found.__cause__, found.__context__])
        waiting.extend((getattr(found, "worker_failures", None) or {}).values())


def innermost(error: BaseException) -> BaseException:
    """Return what Ray has wrapped around, or the error itself."""
    cause = getattr(error, "cause", None)
    return innermost(cause) if isinstance(cause, BaseException) else error


def _of_the_system(error: BaseException) -> VrtSpikeError | None:
    """Return what the system refuses as an error of ours, or None for any other error."""
    if isinstance(error, MemoryError):
        return ResourceError("the machine has no memory left", fix=FIXES[errno.ENOMEM])
    if isinstance(error, OSError) and error.errno in FIXES and error.errno != errno.ENOENT:
        reason = one_line(error.strerror or error, 160)
        where = None if error.filename is None else str(error.filename)[:300]
        return ResourceError(f"the system refuses: {reason}", where=where, fix=FIXES[error.errno])
    return None


def configure_logging(debug: bool) -> None:
    """Send our own log lines to standard error: warnings; in a Ray job more; for debugging all."""
    level = logging.DEBUG if debug else logging.INFO if in_job() else logging.WARNING
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("vrtspike").setLevel(level)
