"""The end of a command: exit status, one line for an error, and an optional JSON file.

0    done
1    done with findings, or failed unexpectedly
2    a VrtSpikeError, also if Ray has wrapped it
130  interrupted
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vrtspike.errors import VrtSpikeError, one_line
from vrtspike.runtime.refusal import configure_logging, find_our_error, innermost


@dataclass
class Outcome:
    """The result of a command; its body fills it in."""

    status: int = 0
    """Exit status."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Contents of the JSON file."""


@contextmanager
def outcome_of_command(
    json_file: Path | str | None, *, debug: bool, say_error: Callable[[str], None]
) -> Iterator[Outcome]:
    """Run the body of a command; print an error as one line, and exit with the status.

    If the JSON file cannot be written, the command ends before it does any work. With `debug`, also
    print a traceback.
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
        refusal = find_our_error(error)
        if refusal is not None:
            outcome.status = 2
            outcome.facts |= {"error": type(refusal).__name__, **vars(refusal)}
            say_error(str(refusal))
        else:
            cause = innermost(error)
            kind, text = type(cause).__name__, one_line(cause)
            outcome.status = 1
            outcome.facts |= {"error": kind, "what": text}
            say_error(f"failed unexpectedly: {kind}: {text} (--debug tells where)")
    if target is not None:
        try:
            _write_json(target, outcome)
        except VrtSpikeError as error:
            say_error(f"--json: {error}")
            outcome.status = outcome.status or 2
    if outcome.status:
        raise SystemExit(outcome.status)


def _json_target(where: Path | str) -> Path:
    """Return the path of the JSON file; raise a VrtSpikeError if it cannot be written."""
    from vrtspike.storage.folder import check_target, local_path  # slow to import, rarely needed

    path = local_path(where, "the result")
    check_target(path)
    return path


def _write_json(path: Path, outcome: Outcome) -> None:
    """Write status and facts as JSON, atomically."""
    from vrtspike.storage.atomic import write_atomically

    facts = json.dumps({"status": outcome.status, **outcome.facts}, indent=2, default=str)
    write_atomically(path, f"{facts}\n".encode())
