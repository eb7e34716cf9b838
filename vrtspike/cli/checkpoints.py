"""`vrtspike checkpoints`: list the checkpoints of a run and verify them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vrtspike.cli.console import Debug, JsonFile, command, print_tables, say

if TYPE_CHECKING:
    from rich.table import Table

    from vrtspike.checkpoints.manifest import Inspected
    from vrtspike.storage.folder import Folder

Run = Annotated[str, typer.Argument(help="Folder of the run (path or URI).")]


def checkpoints(
    run: Run,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Check only names and sizes of files, not their SHA-256."),
    ] = False,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """List and verify the checkpoints of a run. Exit status 1 if one is damaged."""
    with command(json_file, debug) as outcome:
        from vrtspike.checkpoints.manifest import inspect

        folder = open_run(run)
        inspected = inspect(folder, content=not quick)
        best = _best_step(inspected)
        outcome.facts = {
            "checkpoints": [
                {
                    "step": one.step,
                    "world_size": one.saved.world_size if one.saved else None,
                    "bytes": one.bytes,
                    "state": one.state,
                    "best": one.step == best,
                    "problem": one.problem,
                }
                for one in inspected
            ]
        }
        outcome.status = int(any(one.state == "damaged" for one in inspected))
        if inspected:
            print_tables(_table(inspected, best))
        else:
            say(f"no checkpoints in {folder}")


def open_run(run: str) -> Folder:
    """Return the folder of a run's checkpoints; raise CheckpointError if `run` is not a run."""
    from vrtspike.errors import CheckpointError
    from vrtspike.runs.folder import checkpoints_of
    from vrtspike.runs.paths import CONFIG
    from vrtspike.storage.folder import Folder

    folder = Folder.at(run)
    checkpoints = checkpoints_of(folder)
    if folder.size(CONFIG) is None and not checkpoints.exists():
        raise CheckpointError(
            "no run here",
            where=folder,
            got="neither config.yaml nor checkpoints/" if folder.exists() else "no folder",
            fix="name the folder of a run, such as runs/demo",
        )
    return checkpoints


def _best_step(inspected: list[Inspected]) -> int | None:
    """Return the best step so far, as stored in the newest whole checkpoint."""
    newest = next((one.saved for one in inspected if one.saved), None)
    best = newest.facts.get("best") if newest else None
    return int(best[1]) if best else None


def _table(inspected: list[Inspected], best: int | None) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for heading in ("step", "ranks", "size (MB)"):
        table.add_column(heading, justify="right")
    for heading in ("state", "best", "problem"):
        table.add_column(heading)
    for one in inspected:
        table.add_row(
            str(one.step),
            str(one.saved.world_size) if one.saved else "",
            f"{one.bytes / 1e6:.2f}",
            one.state,
            "best" if one.step == best else "",
            escape(one.problem or ""),
        )
    return table
