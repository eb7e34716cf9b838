"""The command that restores video: files in, files out.

discover    the clips that are given, and where the result of each goes
plan        open every clip, and look at what is there of its result
run         restore segments of clips, and publish each clip when its frames are all there
report      say what became of each
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vrtspike.cli.console import (
    Debug,
    JsonFile,
    OptionalConfigFile,
    command,
    range_of,
    say,
    say_error,
    short,
)
from vrtspike.cli.restore_workers import find_workers
from vrtspike.cli.stream_options import BitOrderOption, Flip, Height, Width
from vrtspike.config.choices import Precision
from vrtspike.errors import ConfigError
from vrtspike.runtime.ray_session import resolve_path, resolve_place
from vrtspike.weights import DEFAULT, WITHOUT_SPIKES, packaged

if TYPE_CHECKING:
    from vrtspike.datasets.footage import Source
    from vrtspike.restoration.job import Runner
    from vrtspike.restoration.output import ClipOutput
    from vrtspike.restoration.plan import ClipResult, Restoration
    from vrtspike.restoration.restorer import Restorer
    from vrtspike.restoration.segment_worker import RestoreSettings

Input = Annotated[
    Path, typer.Option("--input", help="Video, folder of images, or folder of such clips.")
]
Out = Annotated[Path, typer.Option(help="Folder, or a video (.mp4, .mov, .mkv) for a single clip.")]
Weights = Annotated[
    str,
    typer.Option(
        help=f"Packaged weights by name ({DEFAULT}, {WITHOUT_SPIKES}), run folder (path or "
        f"URI), or a file of weights (see --config). A folder called {DEFAULT}: ./{DEFAULT}."
    ),
]
SpikeFiles = Annotated[
    Path | None,
    typer.Option(help="Stream (.dat), folder with one a frame, or a folder of such by clip."),
]
Threshold = Annotated[float | None, typer.Option(help="Charge at which a pixel fires.")]
StepsPerFrame = Annotated[
    int | None, typer.Option(min=1, help="Spike steps from one frame's start to the next's.")
]
Exposure = Annotated[
    str | None,
    typer.Option(
        help="Steps of a frame over which it integrated, as FIRST:LAST+1; default: all of them."
    ),
]
Format = Annotated[
    Literal["png", "mp4", "mov", "mkv"] | None,
    typer.Option("--format", help="What a folder is filled with: images, or a video a clip."),
]
Instants = Annotated[
    int,
    typer.Option(
        min=1, help="Sharp frames of each blurred one; of more than 1, spread over its time."
    ),
]
FramesPerSecond = Annotated[
    float | None, typer.Option(min=1e-3, help="Blurred frames a second, of images.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that are there.")]
Memory = Annotated[
    str | None,
    typer.Option(help="Most memory, as 8GB: of each GPU, or of all CPU workers together."),
]
TileSide = Annotated[
    int | None,
    typer.Option(min=1, help="Side of the tiles in pixels; default: as large as fits into memory."),
]
Overlap = Annotated[int, typer.Option(min=0, help="Pixels that neighbouring tiles share.")]
TileFrames = Annotated[int, typer.Option(min=2, help="Most frames restored at once.")]
OverlapFrames = Annotated[int, typer.Option(min=0, help="Frames that these share.")]
Arithmetic = Annotated[
    Precision | None, typer.Option(help="Arithmetic; default: bfloat16 on a GPU, else float32.")
]
WorkerCount = Annotated[
    int | None, typer.Option(min=1, help="Processes; default: one a GPU, or one a machine.")
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, help="Threads of a worker on a CPU; default: all cores, divided by workers."
    ),
]
Device = Annotated[
    Literal["cpu", "cuda"] | None, typer.Option(help="Default: cuda if there is one.")
]


def restore(
    footage: Input,
    out: Out,
    weights: Weights = DEFAULT,
    spikes: SpikeFiles = None,
    config: OptionalConfigFile = None,
    height: Height = None,
    width: Width = None,
    threshold: Threshold = None,
    steps_per_frame: StepsPerFrame = None,
    exposure: Exposure = None,
    bit_order: BitOrderOption = None,
    flip: Flip = None,
    kind: Format = None,
    instants: Instants = 1,
    fps: FramesPerSecond = None,
    overwrite: Overwrite = False,
    memory: Memory = None,
    tile: TileSide = None,
    overlap: Overlap = 32,
    tile_frames: TileFrames = 12,
    overlap_frames: OverlapFrames = 2,
    precision: Arithmetic = None,
    workers: WorkerCount = None,
    threads: Threads = None,
    device: Device = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Restore blurred video with its spikes; the same command finishes what was stopped."""
    with command(json_file, debug) as outcome, ExitStack() as stack:
        camera = describe_camera(
            height, width, threshold, steps_per_frame, exposure, bit_order, flip, fps
        )
        if camera is not None and spikes is None:
            raise ConfigError("a spike camera is described, and no spikes", fix="give --spikes")
        if memory is not None and tile is not None:
            raise ConfigError("--memory chooses the tile, and --tile too", fix="leave one away")
        from vrtspike.restoration.memory import parse_bytes
        from vrtspike.restoration.segment_worker import RestoreSettings

        bound = None if memory is None else parse_bytes(memory)
        sources, outputs = discover(footage, spikes, out, kind, overwrite, fps, camera)
        restorer, known_as = load_weights(weights, config)
        found = find_workers(device, workers, threads, stack)
        settings = RestoreSettings(
            tile,
            overlap,
            tile_frames,
            overlap_frames,
            precision or ("bfloat16" if found.gpu else "float32"),
            found.share(bound),
            instants,
        )
        planned = plan(sources, outputs, restorer, known_as, settings, camera)
        results, seconds = run(planned, lambda: found.runner(restorer, settings, stack))
        outcome.facts = {"seconds": seconds, "clips": [vars(result) for result in results]}
        outcome.status = report(results, seconds)


def discover(
    footage: Path,
    spikes: Path | None,
    out: Path,
    kind: Literal["png", "mp4", "mov", "mkv"] | None,
    overwrite: bool,
    fps: float | None,
    camera: dict[str, Any] | None,
) -> tuple[list[Source], list[ClipOutput]]:
    """Find the clips that are given; return them, and where the result of each goes."""
    from vrtspike.datasets.footage import find_sources, holds_one_clip
    from vrtspike.restoration.output import clip_outputs

    footage = resolve_path(footage)
    sources = find_sources(footage, None if spikes is None else resolve_path(spikes))
    outputs = clip_outputs(
        [source.name for source in sources],
        resolve_path(out, written=True),
        single=holds_one_clip(footage),
        kind=kind,
        overwrite=overwrite,
        fps=None if fps is None else Fraction(fps).limit_denominator(1001),
    )
    check_apart(footage, sources, outputs)
    if fps is not None and camera is None and not any(output.video for output in outputs):
        raise ConfigError("--fps is for videos", fix="leave it away, or write a video")
    return sources, outputs


def plan(
    sources: list[Source],
    outputs: list[ClipOutput],
    restorer: Restorer,
    known_as: str,
    settings: RestoreSettings,
    camera: dict[str, Any] | None,
) -> Restoration:
    """Open all clips, with a progress line where that takes long; an only clip must be sound."""
    from vrtspike.restoration.plan import plan_restoration
    from vrtspike.runtime.progress import Progress

    arguments = (sources, outputs, restorer, known_as, settings, camera)
    if len(sources) > 1:
        with Progress("look at the clips") as progress:
            return plan_restoration(*arguments, progress.update)
    planned = plan_restoration(*arguments)
    for error in planned.errors.values():
        raise error
    return planned


def run(planned: Restoration, runner: Callable[[], Runner]) -> tuple[list[ClipResult], float]:
    """Restore what is planned, with a progress line; return the results and the seconds.

    A clip is published when its frames are all there. A runner is made only where there is
    something to do.
    """
    from vrtspike.restoration.job import restore_clips
    from vrtspike.runtime.progress import Progress

    if not planned.clips:
        return sorted(planned.results, key=lambda result: result.name), 0.0
    at_work = runner()
    with Progress("restore") as progress:
        results = restore_clips(planned, at_work, lambda done, total: progress.update(done, total))
        return results, progress.elapsed()


def report(results: list[ClipResult], seconds: float) -> int:
    """Say what became of the clips; return the exit status."""
    from vrtspike.runtime.progress import clock_text

    by_state = {
        state: [r for r in results if r.state == state] for state in ("done", "there", "failed")
    }
    for result in by_state["there"]:
        say(f"{result.name}: restored already: {short(Path(result.out))}")
    for result in by_state["done"]:
        tiles = ", ".join(f"{tile} pixels" if tile else "whole frames" for tile in result.tiles)
        say(
            f"{result.name}: {result.frames} frames, {result.seconds / result.frames:.2f} s each, "
            f"{tiles}, {result.memory / 1e9:.2f} GB: {short(Path(result.out))}"
        )
    for result in by_state["failed"]:
        say_error(f"{result.name}: {result.error}")
    done, failed = len(by_state["done"]), len(by_state["failed"])
    clips = "1 clip" if done == 1 else f"{done} clips"
    say(f"{clips} restored in {clock_text(seconds)}" + (f", {failed} failed" if failed else ""))
    return 1 if failed else 0


def describe_camera(
    height: int | None,
    width: int | None,
    threshold: float | None,
    steps_per_frame: int | None,
    exposure: str | None,
    bit_order: str | None,
    flip: bool | None,
    fps: float | None,
) -> dict[str, Any] | None:
    """Return the spike camera as options describe it, or None where they do not."""
    needed = {
        "--height": height,
        "--width": width,
        "--threshold": threshold,
        "--steps-per-frame": steps_per_frame,
    }
    given = [name for name, value in needed.items() if value is not None]
    extra = (("--exposure", exposure), ("--bit-order", bit_order), ("--flip", flip))
    given += [name for name, value in extra if value is not None]
    if not given:
        return None
    if lacking := [name for name, value in needed.items() if value is None]:
        raise ConfigError(
            "the spike camera is described in part",
            got=", ".join(given),
            expected=f"{', '.join(lacking)} too, or none and a dataset.yaml",
        )
    assert steps_per_frame is not None
    first, last = range_of("--exposure", exposure) if exposure else (0, steps_per_frame)
    spike = {
        "height": height,
        "width": width,
        "threshold": threshold,
        "rate_hz": None if fps is None else steps_per_frame * fps,
        "bit_order": bit_order,
        "flip": flip,
    }
    return {
        "spike": {name: value for name, value in spike.items() if value is not None},
        "steps_per_frame": steps_per_frame,
        "exposure": [first, last],
        "target_step": (first + last) // 2,
    }


def check_apart(footage: Path, sources: list[Source], outputs: list[ClipOutput]) -> None:
    """Refuse results that would replace what they are made of, or be taken for clips themselves."""
    inputs = {source.frames.resolve() for source in sources}
    inputs |= {source.spikes.resolve() for source in sources if source.spikes is not None}
    clips = None if footage.is_file() or len(sources) == 1 else footage.resolve()
    for output in outputs:
        place = output.place.resolve()
        if place in inputs or (clips is not None and clips in (place, *place.parents)):
            raise ConfigError(
                "the output lies in the input", where=place, fix="name another place as --out"
            )


def load_weights(weights: str, config: Path | None) -> tuple[Restorer, str]:
    """Return a model on the CPU, and the SHA-256 of its weights; a name goes before a path."""
    from vrtspike.restoration.restorer import Restorer, fetched, weights_file
    from vrtspike.storage.folder import Folder, sha256_of

    own = packaged(weights)
    place = resolve_place(weights) if own is None else Folder(str(own))
    with ExitStack() as stack:
        path = stack.enter_context(fetched(place)) if place.remote else place.path
        restorer = Restorer.load(path, config=None if config is None else resolve_path(config))
        return restorer, sha256_of(weights_file(path))
