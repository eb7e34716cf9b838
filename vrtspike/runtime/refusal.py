"""Find our error inside the errors that Ray wraps around it, and set up logging."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator

from vrtspike.errors import ResourceError, VrtSpikeError, one_line
from vrtspike.runtime.ray_session import in_job
from vrtspike.storage.atomic import FIXES


def find_our_error(error: BaseException) -> VrtSpikeError | None:
    """Return our error, also from inside the errors that Ray wraps around a worker's error.

    Convert an error of a disk or the operating system to ours. Return None for other errors.
    """
    converted: VrtSpikeError | None = None
    for inner in _with_causes(error):
        # Ray's task errors also inherit from the class of their cause, but only the cause has our
        # message.
        cause = getattr(inner, "cause", None)
        if isinstance(inner, VrtSpikeError) and not isinstance(cause, VrtSpikeError):
            return inner
        if converted is None and not isinstance(cause, BaseException):
            converted = _from_system_error(inner)
    return converted


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all its causes, nearest first."""
    visited: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        current = waiting.pop(0)
        if not isinstance(current, BaseException) or id(current) in visited:
            continue
        visited.add(id(current))
        yield current
        waiting.extend([getattr(current, "cause", None), current.__cause__, current.__context__])
        waiting.extend((getattr(current, "worker_failures", None) or {}).values())


def innermost(error: BaseException) -> BaseException:
    """Return the innermost error that Ray has wrapped, or the error itself."""
    cause = getattr(error, "cause", None)
    return innermost(cause) if isinstance(cause, BaseException) else error


def _from_system_error(error: BaseException) -> VrtSpikeError | None:
    """Convert an error of the operating system to ours; return None for other errors."""
    if isinstance(error, MemoryError):
        return ResourceError("the machine has no memory left", fix=FIXES[errno.ENOMEM])
    if isinstance(error, OSError) and error.errno in FIXES and error.errno != errno.ENOENT:
        reason = one_line(error.strerror or error, 160)
        where = None if error.filename is None else str(error.filename)[:300]
        return ResourceError(f"the system refuses: {reason}", where=where, fix=FIXES[error.errno])
    return None


def configure_logging(debug: bool) -> None:
    """Log to standard error: from warnings on, in a Ray job from info on, with `debug` all."""
    level = logging.DEBUG if debug else logging.INFO if in_job() else logging.WARNING
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("vrtspike").setLevel(level)
