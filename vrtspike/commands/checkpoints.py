"""Commands on the checkpoints of a run: checkpoints, export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vrtspike.commands.console import Debug, JsonFile, command, print_tables, say, say_error, short

if TYPE_CHECKING:
    from rich.table import Table

    from vrtspike.storage import Folder
    from vrtspike.training.checkpoint import Inspected, Saved

Run = Annotated[str, typer.Argument(help="Folder of the run: a path or a URI.")]


def checkpoints(
    run: Run,
    quick: Annotated[
        bool, typer.Option("--quick", help="Check names and sizes, not the content.")
    ] = False,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """List a run's checkpoints and whether each is whole; status 1 if one is damaged."""
    with command(json_file, debug) as outcome:
        from vrtspike.training.checkpoint import inspect

        folder = _open_run(run)
        found = inspect(folder, content=not quick)
        best = _best_step(found)
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
                for one in found
            ]
        }
        outcome.status = int(any(one.state == "damaged" for one in found))
        if found:
            print_tables(_table(found, best))
        else:
            say(f"no checkpoints in {folder}")


def export(
    run: Run,
    step: Annotated[
        int | None, typer.Option(min=0, help="Step of the checkpoint; without: the newest whole.")
    ] = None,
    weights: Annotated[
        Literal["averaged", "raw"] | None,
        typer.Option(help="Without: averaged, where the run averages."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="File (path or URI); without: RUN/export/model.safetensors."),
    ] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Write the weights of a checkpoint as one safetensors file, with their configuration."""
    with command(json_file, debug) as outcome:
        from vrtspike.run_files import EXPORT
        from vrtspike.storage import Folder
        from vrtspike.training.export import weights_of_checkpoint, write_export

        folder = _open_run(run)
        target, name = Folder.at(run), EXPORT
        if out is not None:
            target, name = Folder.of_file(out)
        saved = _choose(folder, step)
        tensors, metadata = weights_of_checkpoint(saved, weights)
        write_export(target, name, tensors, metadata)
        file = target.name(name)
        outcome.facts = {"file": file, "step": saved.step, "tensors": len(tensors)}
        say(f"weights of step {saved.step}: {short(file)}")


def _open_run(run: str) -> Folder:
    """Return the folder of a run's checkpoints; refuse a place that is no run."""
    from vrtspike.errors import CheckpointError
    from vrtspike.run_files import CONFIG
    from vrtspike.storage import Folder
    from vrtspike.training.folder import checkpoints_of

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


def _choose(checkpoints: Folder, step: int | None) -> Saved:
    """Return the checkpoint to export; say what was passed over on the way."""
    from vrtspike.errors import CheckpointError
    from vrtspike.training.checkpoint import checkpoint_folder, checkpoint_steps, newest, verify

    if step is not None:
        steps = checkpoint_steps(checkpoints)
        if step not in steps:
            raise CheckpointError(
                f"no checkpoint of step {step}",
                where=checkpoints,
                expected=f"one of {', '.join(map(str, reversed(steps)))}" if steps else None,
            )
        return verify(checkpoint_folder(checkpoints, step))
    saved, passed_over = newest(checkpoints)
    for problem in passed_over:
        say_error(f"passed over a checkpoint: {problem}")
    if saved is None:
        raise CheckpointError("no checkpoint yet", where=checkpoints, fix="let the run go on")
    return saved


def _best_step(found: list[Inspected]) -> int | None:
    """Return the step that scored best, as the newest whole checkpoint knows it."""
    newest = next((one.saved for one in found if one.saved), None)
    best = newest.facts.get("best") if newest else None
    return int(best[1]) if best else None


def _table(found: list[Inspected], best: int | None) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for heading in ("step", "ranks", "size (MB)"):
        table.add_column(heading, justify="right")
    for heading in ("state", "best", "problem"):
        table.add_column(heading)
    for one in found:
        table.add_row(
            str(one.step),
            str(one.saved.world_size) if one.saved else "",
            f"{one.bytes / 1e6:.2f}",
            one.state,
            "best" if one.step == best else "",
            escape(one.problem or ""),
        )
    return table
