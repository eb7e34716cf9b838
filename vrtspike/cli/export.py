"""`vrtspike export`: write the weights of a checkpoint to one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vrtspike.cli.checkpoints import Run, open_run
from vrtspike.cli.console import Debug, JsonFile, command, say, say_error, short

if TYPE_CHECKING:
    from vrtspike.checkpoints.manifest import Checkpoint
    from vrtspike.storage.folder import Folder


def export(
    run: Run,
    step: Annotated[
        int | None,
        typer.Option(min=0, help="Step of the checkpoint; default: the newest whole one."),
    ] = None,
    weights: Annotated[
        Literal["averaged", "raw"] | None,
        typer.Option(help="Which weights; default: averaged, if the run averages them."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="File to write (path or URI); default: RUN/export/model.safetensors."),
    ] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Write the weights of a checkpoint to a file.

    Writes one safetensors file with the configuration in its metadata.
    """
    with command(json_file, debug) as outcome:
        from vrtspike.runs.export import weights_of_checkpoint, write_export
        from vrtspike.runs.paths import EXPORT
        from vrtspike.storage.folder import Folder

        folder = open_run(run)
        target, name = Folder.at(run), EXPORT
        if out is not None:
            target, name = Folder.of_file(out)
        saved = _choose(folder, step)
        tensors, metadata = weights_of_checkpoint(saved, weights)
        write_export(target, name, tensors, metadata)
        file = target.name(name)
        outcome.facts = {"file": file, "step": saved.step, "tensors": len(tensors)}
        say(f"weights of step {saved.step}: {short(file)}")


def _choose(checkpoints: Folder, step: int | None) -> Checkpoint:
    """Return the checkpoint to export; print a line for each newer one that is not whole."""
    from vrtspike.checkpoints.manifest import checkpoint_folder, checkpoint_steps, newest, verify
    from vrtspike.errors import CheckpointError

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
