"""`vrtspike describe`: what a configuration costs."""

from __future__ import annotations

from typing import Annotated

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


def describe(
    config: ConfigFile,
    overrides: Overrides = None,
    gpus: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Predict a step on so many; may be repeated."),
    ] = None,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="GPUs of a node.")] = 8,
    tflops: Annotated[
        float | None,
        typer.Option(min=1e-6, help="What a GPU computes; default: 40 % of an H100's most."),
    ] = None,
    network: Annotated[
        float, typer.Option(min=1e-3, help="Gbit/s that a node can send to others.")
    ] = 100.0,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Tell what a configuration costs: parameters, operations, memory, and a step on many GPUs."""
    with command(json_file, debug) as outcome:
        settings = load(config, overrides)
        from vrtspike.bench import step_model
        from vrtspike.bench.describe import describe
        from vrtspike.bench.tables import memory_table, parts_table, step_model_table

        speed = step_model.ASSUMED_FLOPS if tflops is None else tflops * 1e12
        assumed = step_model.Assumptions(speed, network * 1e9, gpus_per_node)
        step_model.check_nodes(gpus or (), gpus_per_node)
        found = describe(settings)
        work = step_model.count_work(found, settings.train.accumulation)
        predictions = step_model.predict(settings, work, gpus or assumed.usual_gpus, assumed)
        outcome.facts = {
            **found.as_dict(),
            "predictions": [prediction.as_dict() for prediction in predictions],
        }
        say(f"a worker's batch: {found.clip} (b x t x h x w), {found.precision}")
        print_tables(parts_table(found), memory_table(found), step_model_table(predictions))
        say(f"counted on {found.device}" + (f": {found.note}" if found.note else ""))
        for line in step_model.premises(work, assumed):
            say(line)
