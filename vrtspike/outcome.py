"""How a command ends: exit status, one line for an error, and a JSON file for machines.

0    done
1    done with findings, or failed unexpectedly
2    refused: a VrtSpikeError, wherever Ray may have wrapped it
130  interrupted
"""

from __future__ import annotations

import errno
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vrtspike.cluster import in_job
from vrtspike.errors import ResourceError, VrtSpikeError, one_line
from vrtspike.whole_file import FIXES


@dataclass
class Outcome:
    """What a command has to say to a machine, and its exit status."""

    status: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@contextmanager
def outcome_of_command(
    json_file: Path | str | None, *, debug: bool, say_error: Callable[[str], None]
) -> Iterator[Outcome]:
    """Run a command's body; turn what it raises into one line, and end with its exit status.

    A place for the JSON file that cannot be written to is refused before the work.
    """
    outcome = Outcome()
    configure_logging(debug)
    try:
        target = None if json_file is None else _json_target(json_file)
    except VrtSpikeError as error:
        say_error(f"--json: {error}")
        raise SystemExit(2) from None
    try:
        yield outcome
    except KeyboardInterrupt:
        outcome.status = 130
        say_error("interrupted")
    except Exception as error:
        if debug:
            traceback.print_exc()
        refusal = find_refusal(error)
        if refusal is not None:
            outcome.status = 2
            outcome.facts |= {"error": type(refusal).__name__, **vars(refusal)}
            say_error(str(refusal))
        else:
            found = _innermost(error)
            text = one_line(found)
            outcome.status = 1
            outcome.facts |= {"error": type(found).__name__, "what": text}
            say_error(f"failed unexpectedly: {type(found).__name__}: {text} (--debug tells where)")
    if target is not None:
        try:
            _write_json(target, outcome)
        except VrtSpikeError as error:
            say_error(f"--json: {error}")
            outcome.status = outcome.status or 2
    if outcome.status:
        raise SystemExit(outcome.status)


def _json_target(where: Path | str) -> Path:
    """Return the path of the JSON file; what cannot be written to is refused."""
    from vrtspike.storage import check_target, local_path  # heavy, and needed by few

    path = local_path(where, "the result")
    check_target(path)
    return path


def _write_json(path: Path, outcome: Outcome) -> None:
    """Write status and facts, whole or not at all."""
    from vrtspike.storage import write_atomically

    facts = json.dumps({"status": outcome.status, **outcome.facts}, indent=2, default=str)
    write_atomically(path, f"{facts}\n".encode())


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


def _innermost(error: BaseException) -> BaseException:
    """Return what Ray has wrapped around, or the error itself."""
    cause = getattr(error, "cause", None)
    return _innermost(cause) if isinstance(cause, BaseException) else error


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
