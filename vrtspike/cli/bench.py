"""Commands that measure: describe, bench."""

from __future__ import annotations

from pathlib import Path
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


def describe(
    config: ConfigFile,
    overrides: Overrides = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Tell what a configuration costs: parameters, operations, shapes, memory of a step."""
    with command(json_file, debug) as outcome:
        settings = load(config, overrides)
        from vrtspike.bench.describe import describe
        from vrtspike.bench.tables import memory_table, parts_table

        found = describe(settings)
        outcome.facts = found.as_dict()
        say(f"a worker's batch: {found.clip} (b x t x h x w), {found.precision}")
        print_tables(parts_table(found), memory_table(found))
        say(f"counted on {found.device}" + (f": {found.note}" if found.note else ""))


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
        Literal["cpu", "cuda"] | None, typer.Option(help="Without: cuda where there is one.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads on a CPU.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed passes of each case.")] = 3,
    naive: Annotated[bool, typer.Option(help="Compare the fast paths with plain code.")] = True,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Time restoring and training, fused and baseline in turns; tell their greatest memory."""
    with command(json_file, debug) as outcome:
        settings = load(config, overrides).model
        from vrtspike.bench.model import Plan, find_machine, parse_size, run_plan
        from vrtspike.bench.tables import comparisons_table, results_table
        from vrtspike.runtime.progress import Progress

        plan = Plan(
            clips=tuple(parse_size(text, batch) for text in size or ["6x64x64"]),
            precisions=("float32", "bfloat16") if precision == "both" else (precision,),
            checkpoints=(None,) if checkpoint == "configured" else CHOICES[checkpoint],
            compiles=CHOICES[compiled],
            repeats=repeats,
            naive=naive,
        )
        machine = find_machine(device, threads)
        with Progress("bench model") as progress:
            found = run_plan(settings, plan, machine, progress.update)
        outcome.facts, outcome.status = found.as_dict(), int(found.failed)
        say(str(machine))
        print_tables(results_table(found.results))
        if found.comparisons:
            print_tables(comparisons_table(found.comparisons))


def bench_data(
    height: Annotated[int, typer.Option(min=1, help="Rows of a frame.")] = 720,
    width: Annotated[int, typer.Option(min=1, help="Columns of a frame.")] = 1280,
    spike_scale: Annotated[int, typer.Option(min=1, help="How coarser the spike grid is.")] = 2,
    frames: Annotated[int, typer.Option(min=1, help="Frames of a sample.")] = 6,
    steps: Annotated[int, typer.Option(min=1, help="Spike steps of a frame.")] = 88,
    crop: Annotated[int, typer.Option(min=1, help="Side of the training crop.")] = 192,
    bins: Annotated[int, typer.Option(min=1, help="Voxel bins of a frame.")] = 32,
    cores: Annotated[
        list[int] | None,
        typer.Option(
            min=0, help="Cores the pipeline is bound to, 0: leave it out; may be repeated."
        ),
    ] = None,
    clips: Annotated[
        list[int] | None, typer.Option(min=1, help="Small clips for its memory; may be repeated.")
    ] = None,
    batches: Annotated[int, typer.Option(min=4, help="Micro-batches of its measurement.")] = 128,
    repeats: Annotated[int, typer.Option(min=1, help="Timed passes of the rest.")] = 7,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Measure on generated data what voxelization, samples and the pipeline cost."""
    with command(json_file, debug) as outcome:
        from vrtspike.bench.data import DataPlan, run_data_plan, usual_cores
        from vrtspike.bench.generated import Sizes
        from vrtspike.bench.tables import stages_table, throughput_table, voxelization_table
        from vrtspike.runtime.progress import Progress

        plan = DataPlan(
            sizes=Sizes(
                height=height,
                width=width,
                spike_scale=spike_scale,
                frames=frames,
                steps=steps,
                crop=crop,
                bins=bins,
            ),
            repeats=repeats,
            cores=tuple(core for core in cores or usual_cores() if core),
            batches=batches,
            many=tuple(clips or (100, 1000)),
        )
        with Progress("bench data") as progress:
            found = run_data_plan(plan, progress.update)
        outcome.facts = found.as_dict()
        say(str(found.machine))
        print_tables(voxelization_table(found.voxelization), stages_table(found.stages))
        if plan.cores:
            print_tables(throughput_table(found))


def bench_scaling(
    config: ConfigFile,
    overrides: Overrides = None,
    workers: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Training processes; may be repeated. Without: 1, 2, 4."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps of a turn.")] = 4,
    repeats: Annotated[int, typer.Option(min=1, help="Turns of each case.")] = 5,
    measure: Annotated[bool, typer.Option(help="Measure here; without, only predict.")] = True,
    gpus: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Predict a step on so many; may be repeated."),
    ] = None,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="GPUs of a node.")] = 8,
    tflops: Annotated[
        float | None,
        typer.Option(min=1e-6, help="What a GPU computes; without: measured or assumed."),
    ] = None,
    network: Annotated[
        float, typer.Option(min=1e-3, help="Gbit/s that a node can send to others.")
    ] = 100.0,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Measure what more workers and checkpoints cost; predict a step on many GPUs."""
    with command(json_file, debug) as outcome:
        settings = load(config, overrides)
        from vrtspike.bench.scaling import Fleet, ScalingPlan, run_scaling
        from vrtspike.bench.step_model import USUAL_GPUS
        from vrtspike.bench.tables import saving_table, scaling_table, step_model_table
        from vrtspike.runtime.progress import Progress

        plan = ScalingPlan(tuple(workers or ()), steps, repeats) if measure else None
        fleet = Fleet(
            gpus=tuple(gpus or USUAL_GPUS),
            gpus_per_node=gpus_per_node,
            flops_s=None if tflops is None else tflops * 1e12,
            network_bits_s=network * 1e9,
        )
        with Progress("bench scaling") as progress:
            found = run_scaling(settings, plan, fleet, progress.update)
        outcome.facts = found.as_dict()
        if found.saving is not None:
            busy = f"others kept {found.others:.1f} of {found.cores} cores busy meanwhile"
            say(f"{found.machine}; {busy}")
            print_tables(scaling_table(found.scaled), saving_table(found.saving))
        if not all(case.own for case in found.scaled):
            say("* more threads than cores: they take turns, and are not bound to any")
        print_tables(step_model_table(found.predictions))
        for line in found.premises():
            say(line)


def bench_restore(
    config: ConfigFile,
    overrides: Overrides = None,
    size: Annotated[
        tuple[int, int], typer.Option(help="Rows and columns, where length and workers vary.")
    ] = (96, 96),
    lengths: Annotated[
        list[int] | None, typer.Option("--frames", min=1, help="Lengths; 100 and 1,000.")
    ] = None,
    workers: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Workers of one thread, or of a GPU each; 1 and 2."),
    ] = None,
    worker_frames: Annotated[int, typer.Option(min=1, help="Frames that they restore.")] = 500,
    memory: Annotated[
        list[str] | None, typer.Option(help="Bounds to be kept; 1.5GB, 2GB and 3GB.")
    ] = None,
    bound_size: Annotated[
        tuple[int, int], typer.Option(help="Rows and columns, where the bound varies.")
    ] = (272, 640),
    speed_size: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Rows and columns, where a frame is timed; with a GPU: 720 1280."),
    ] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Measure `vrtspike restore`: memory by length and by bound, speed by workers and size."""
    with command(json_file, debug) as outcome:
        settings = load(config, overrides)
        import torch

        from vrtspike.bench.model import find_machine
        from vrtspike.bench.restoring import RestorePlan, computed_over_frame, run_restore_plan
        from vrtspike.bench.tables import restoring_table
        from vrtspike.restoration.memory import parse_bytes
        from vrtspike.runtime.progress import Progress

        machine = find_machine(None, None)
        gpus = torch.cuda.device_count()
        plan = RestorePlan(
            size,
            tuple(lengths or (100, 1000)),
            tuple(workers or ((1, 2) if gpus != 1 else (1,))),
            worker_frames,
            tuple(parse_bytes(text) for text in memory or ("1.5GB", "2GB", "3GB")),
            bound_size,
            gpus=gpus,
            speed_size=speed_size or ((720, 1280) if gpus else None),
        )
        with Progress("bench restore") as progress:
            found = run_restore_plan(settings, plan, machine, progress.update)
        outcome.facts = found.as_dict()
        say(str(machine))
        print_tables(restoring_table(found))
        over = computed_over_frame(720, 1280, 100)
        say(f"100 frames of 720x1280 in tiles of 384 pixels: {over:.3f} times the pixels")


def bench_flow(
    config: ConfigFile,
    overrides: Overrides = None,
    weights: Annotated[
        str, typer.Option(help="Run folder, or weights of a flow network or of a whole model.")
    ] = "runs/flow",
    video: Annotated[
        Path | None, typer.Option(help="Video, or folder of frames, to measure on too.")
    ] = None,
    scenes: Annotated[
        int | None,
        typer.Option(min=1, help="Held-out scenes; scenes.sequences.held_out, or 8."),
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of the video, a distance.")] = 8,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the network.")] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Measure a flow network beside others: on scenes with exact motion, and on real frames."""
    with command(json_file, debug) as outcome:
        settings = load(config, overrides)
        from vrtspike.bench.flow import measure_flow
        from vrtspike.bench.model import find_machine
        from vrtspike.bench.tables import flow_table
        from vrtspike.config.scenes import SceneSettings
        from vrtspike.model.flow_network import read_flow_network
        from vrtspike.restoration.restorer import weights_file
        from vrtspike.runtime.progress import Progress
        from vrtspike.runtime.ray_session import resolve_path
        from vrtspike.weights import packaged

        network = read_flow_network(packaged(weights) or weights_file(resolve_path(Path(weights))))
        machine = find_machine("cpu", threads)
        with Progress("bench flow") as progress:
            of = settings.scenes or SceneSettings()
            found = measure_flow(
                network,
                of,
                count=scenes or of.sequences.get("held_out") or 8,
                video=None if video is None else resolve_path(video),
                video_pairs=pairs,
                progress=progress.update,
            )
        outcome.facts = found.as_dict()
        say(str(machine))
        print_tables(flow_table(found))
