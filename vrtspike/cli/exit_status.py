"""How a command ends: exit status, one line for an error, and a JSON file for machines.

0    done
1    done with findings, or failed unexpectedly
2    refused: a VrtSpikeError, wherever Ray may have wrapped it
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
from vrtspike.runtime.refusal import configure_logging, find_refusal, innermost


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
            found = innermost(error)
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
    from vrtspike.storage.folder import check_target, local_path  # heavy, and needed by few

    path = local_path(where, "the result")
    check_target(path)
    return path


def _write_json(path: Path, outcome: Outcome) -> None:
    """Write status and facts, whole or not at all."""
    from vrtspike.storage.folder import write_atomically

    facts = json.dumps({"status": outcome.status, **outcome.facts}, indent=2, default=str)
    write_atomically(path, f"{facts}\n".encode())
