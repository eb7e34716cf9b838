"""`vrtspike bench model`: times a model on this machine."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from vrtspike.cli.console import (
    ConfigFile,
    Debug,
    JsonFile,
    Overrides,
    command,
    load,
    print_tables,
    say,
)

Choice = Literal["off", "on", "both"]
CHOICES = {"off": (False,), "on": (True,), "both": (False, True)}


def bench_model(
    config: ConfigFile,
    overrides: Overrides = None,
    size: Annotated[
        list[str] | None, typer.Option(help="Frames x height x width; may be repeated.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Clips at once.")] = 1,
    precision: Annotated[
        Literal["float32", "bfloat16", "both"], typer.Option(help="Arithmetic.")
    ] = "float32",
    checkpoint: Annotated[
        Literal["configured", "off", "on", "both"],
        typer.Option(help="Recompute attention and MLPs in the backward pass."),
    ] = "configured",
    compiled: Annotated[
        Choice, typer.Option("--compile", help="Run torch.compile on each block.")
    ] = "off",
    device: Annotated[
        Literal["cpu", "cuda"] | None, typer.Option(help="Default: cuda if there is one.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads on a CPU.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed passes of each case.")] = 3,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Time restoring and training, fused and baseline in turns; tell their greatest memory."""
    with command(json_file, debug) as outcome:
        settings = load(config, overrides).model
        from vrtspike.bench.model import Plan, find_machine, parse_size, run_plan
        from vrtspike.bench.tables import results_table
        from vrtspike.runtime.progress import Progress

        plan = Plan(
            clips=tuple(parse_size(text, batch) for text in size or ["6x64x64"]),
            precisions=("float32", "bfloat16") if precision == "both" else (precision,),
            checkpoints=(None,) if checkpoint == "configured" else CHOICES[checkpoint],
            compiles=CHOICES[compiled],
            repeats=repeats,
        )
        machine = find_machine(device, threads)
        with Progress("bench model") as progress:
            found = run_plan(settings, plan, machine, progress.update)
        outcome.facts, outcome.status = found.as_dict(), int(found.failed)
        say(str(machine))
        print_tables(results_table(found.results))
