"""Commands on datasets and streams: simulate, validate, preview, convert, prepare.

Heavy modules are imported inside the commands, so that `vrtspike --help` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vrtspike.cluster import connect, resolve_path
from vrtspike.commands.console import (
    ConfigFile,
    Debug,
    JsonFile,
    LayoutOption,
    OptionalConfigFile,
    Overrides,
    check_dataset,
    command,
    load,
    range_of,
    say,
    short,
)
from vrtspike.errors import ConfigError, DataFormatError

if TYPE_CHECKING:
    from vrtspike.data.stream import SpikeStream

BitOrder = Literal["little", "big"]
Axes = Literal["shw", "hws"]
Height = Annotated[int | None, typer.Option(help="Rows of the spike grid.")]
Width = Annotated[int | None, typer.Option(help="Columns of the spike grid.")]
BitOrderOption = Annotated[
    BitOrder | None, typer.Option(help="Order of the pixels in a byte; bit-packed: little.")
]
Flip = Annotated[
    bool | None,
    typer.Option("--flip/--no-flip", help="Rows are stored bottom-up; as the format has it."),
]
PadToByte = Annotated[bool, typer.Option(help="Each step ends on a byte.")]
DropColumns = Annotated[
    list[str] | None,
    typer.Option(help="Stored columns that are no picture, as FIRST:LAST+1; may be repeated."),
]
AxesOption = Annotated[
    Axes | None, typer.Option(help="Order of an array's axes: steps, rows (h), columns (w).")
]
Key = Annotated[str | None, typer.Option(help="Name of the array in a .npz or HDF5 file.")]


def simulate(
    overrides: Overrides = None,
    config: OptionalConfigFile = None,
    video: Annotated[
        Path | None, typer.Option(help="Sharp video, or folder of frames; without: scenes.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Dataset folder to write; without: data.source.")
    ] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Make spikes, blurred and sharp frames from a video or from rendered scenes."""
    with command(json_file, debug) as outcome:
        settings = load(config, overrides)
        from vrtspike.storage import local_path

        folder = local_path(out or settings.data.source, "a simulation")
        if out:
            folder = resolve_path(folder, written=True)
        if video is None and settings.scenes is None:
            raise ConfigError(
                "nothing to simulate from",
                fix="give --video FILE, or a --config that has a `scenes:` section",
            )
        if video is not None and out is None:
            raise ConfigError("no folder for the simulated dataset", fix="give --out DIR")
        from vrtspike.data.video_file import iter_frames
        from vrtspike.progress import Progress

        # What does not decode costs no start of Ray.
        if video is not None:
            video = resolve_path(video)
            if next(iter_frames(video), None) is None:
                raise DataFormatError("the video holds no frame", where=video)
        with connect(), Progress("simulate") as progress:
            from vrtspike.simulate.distributed import simulate_scenes, simulate_video

            if video is not None:
                simulate_video(
                    video,
                    folder,
                    settings.camera,
                    progress.update,
                    settings=settings.video,
                )
            else:
                assert settings.scenes is not None
                simulate_scenes(settings.scenes, settings.camera, folder, progress.update)
        outcome.facts = {"dataset": str(folder)}
        say(f"dataset: {short(folder)}")


def validate(
    dataset: Annotated[str, typer.Argument(help="Dataset folder, or its URI.")],
    layout: LayoutOption = "vrtspike",
    html: Annotated[str | None, typer.Option(help="Write a page with thumbnails here.")] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Check a dataset folder before it costs training time; findings give exit status 1."""
    with command(json_file, debug) as outcome:
        from vrtspike.data.dataset import open_dataset
        from vrtspike.data.validate import check_dataset as find_problems
        from vrtspike.progress import Progress
        from vrtspike.storage import check_target, local_path
        from vrtspike.viz.validation import write_validation_report

        page = local_path(html, "a page") if html else None
        if page is not None:
            check_target(page)
        opened = open_dataset(dataset, layout)
        with Progress("validate") as progress:
            found = find_problems(opened, progress.update)
        name, count = str(opened.folder), len(found.findings)
        outcome.facts = {"dataset": name, "layout": layout, **found.facts()}
        outcome.status = 1 if count else 0
        for finding in found.findings:
            say(f"{finding.kind}: {finding.message} [{finding.where}]")
        say(f"{name}: {count} findings" if count else f"{name}: nothing found")
        if page is not None:
            write_validation_report(page, opened, found)


def preview(
    file: Annotated[
        Path,
        typer.Argument(help="Spike stream (.dat, .npy, .npz, .h5), or a folder of SpikeCV's."),
    ],
    height: Height = None,
    width: Width = None,
    out: Annotated[str, typer.Option(help="Folder for the images.")] = "preview",
    threshold: Annotated[float, typer.Option(help="Scales spikes to brightness.")] = 2.0,
    center: Annotated[int | None, typer.Option(help="Step to look at; the middle.")] = None,
    window: Annotated[int, typer.Option(help="Steps that are averaged.")] = 32,
    bins: Annotated[int, typer.Option(help="Voxel bins of the window.")] = 8,
    bit_order: BitOrderOption = None,
    flip: Flip = None,
    pad_to_byte: PadToByte = False,
    drop_columns: DropColumns = None,
    axes: AxesOption = None,
    key: Key = None,
    frame: Annotated[
        Path | None, typer.Option(help="Sharp frame of the same instant, to compare with.")
    ] = None,
    animation: Annotated[
        str | None, typer.Option(help="Write averages through time: a .gif or .mp4 file.")
    ] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Look at a stream: average (TFP), interval (TFI), bits, voxels, intervals, an animation."""
    with command(json_file, debug) as outcome:
        from vrtspike.storage import check_target, local_path
        from vrtspike.viz.intervals import measure_intervals
        from vrtspike.viz.spike_video import check_animation, write_animation
        from vrtspike.viz.spikes import compare, preview, write_preview

        described = _described(height, width, bit_order, flip, pad_to_byte, drop_columns, axes, key)
        images = local_path(out, "a preview")
        check_target(images / "tfp.png")
        stream, shown, count = _open(file, described, threshold)
        film = local_path(animation, "an animation") if animation else None
        if film is not None:
            check_animation(film, len(stream), window=window)
            check_target(film)
        figures = measure_intervals(stream)
        pictures = preview(
            stream, center=center, window=window, bins=bins, intervals=figures, frame=frame
        )
        outcome.facts = {"file": str(shown), "streams": count}
        outcome.facts |= {"height": stream.height, "width": stream.width, **figures.facts()}
        if frame is not None:
            outcome.facts["psnr"] = compare(pictures, frame)
        files = write_preview(pictures, images)
        if film is not None:
            write_animation(stream, film, window=window)
            files.append(film)
        outcome.facts["files"] = [str(path) for path in files]
        if count > 1:
            say(f"{file}: {count} streams, of which the first is shown")
        say(f"{shown}: {len(stream)} steps of {stream.height}x{stream.width}")
        _say_figures(figures.facts())
        for name, psnr in outcome.facts.get("psnr", {}).items():
            say(f"{name} against {frame}: {psnr:.2f} dB")
        say("wrote " + " ".join(str(path) for path in files))


def _say_figures(facts: dict[str, Any]) -> None:
    """Print what is known of a stream's intervals, a line each."""
    for name, value in facts.items():
        if value is not None and name != "steps":
            say(f"{name.replace('_', ' ')}: {value:.4g}")


def convert(
    source: Annotated[str, typer.Argument(help="Dataset folder (or its URI), or a stream.")],
    out: Annotated[str, typer.Argument(help="Dataset folder to write, or a stream by suffix.")],
    layout: LayoutOption = "vrtspike",
    height: Height = None,
    width: Width = None,
    bit_order: BitOrderOption = None,
    flip: Flip = None,
    pad_to_byte: PadToByte = False,
    drop_columns: DropColumns = None,
    axes: AxesOption = None,
    key: Key = None,
    out_axes: Annotated[Axes | None, typer.Option(help="Axes of an array that is written.")] = None,
    out_bit_order: Annotated[
        BitOrder | None, typer.Option(help="Order of the pixels in a byte that is written.")
    ] = None,
    out_flip: Annotated[
        bool | None,
        typer.Option(
            "--out-flip/--no-out-flip", help="Write rows bottom-up; as the format has it."
        ),
    ] = None,
    out_key: Annotated[str | None, typer.Option(help="Name of the array that is written.")] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Turn a published dataset into ours, or a spike stream into another format."""
    with command(json_file, debug) as outcome:
        from vrtspike.data.convert import convert as convert_dataset
        from vrtspike.data.convert_stream import write_stream
        from vrtspike.progress import Progress
        from vrtspike.storage import Folder, local_path

        described = _described(height, width, bit_order, flip, pad_to_byte, drop_columns, axes, key)
        writing = {"axes": out_axes, "bit_order": out_bit_order, "flip": out_flip, "key": out_key}
        target, place = local_path(out, "what is converted"), Folder.at(source)
        if not place.remote and not place.path.exists():
            raise DataFormatError("no such file or folder", where=place)
        if place.remote or not place.path.is_file():
            given = [f"out_{name}" for name, value in writing.items() if value is not None]
            if options := [*described, *given]:
                raise ConfigError(
                    f"{_option(options[0])} is for a single stream",
                    where=place,
                    fix="leave it out for a dataset",
                )
            with Progress("convert") as progress:
                sequences = convert_dataset(source, target, layout, progress.update)
            outcome.facts = {"dataset": str(target), "sequences": sequences}
            say(f"dataset: {target}: {sequences} sequences")
            return
        if layout != "vrtspike":
            raise ConfigError("--layout is for dataset folders", where=place)
        stream, _, _ = _open(place.path, described, None)
        write_stream(
            target, stream, axes=out_axes, bit_order=out_bit_order, flip=out_flip, key=out_key
        )
        outcome.facts = {"stream": str(target), "shape": stream.shape}
        say(f"stream: {target}: {len(stream)} steps of {stream.height}x{stream.width}")


def prepare(
    config: ConfigFile,
    overrides: Overrides = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Shard a dataset for training (Ray Data); continues where it was stopped."""
    with command(json_file, debug) as outcome:
        settings = load(config, overrides)
        data = settings.data
        dataset = check_dataset(settings)
        from vrtspike.progress import Progress

        with connect(), Progress("prepare") as progress:
            from vrtspike.data.prepare import prepare_data

            manifest = prepare_data(data, progress.update, dataset=dataset)
        samples = {name: len(split.samples) for name, split in manifest.splits.items()}
        refused = [refusal.model_dump() for refusal in manifest.refused]
        place = short(data.shards)
        outcome.facts = {"shards": str(place), "samples": samples, "refused": refused}
        counts = ", ".join(f"{count} samples of {name}" for name, count in samples.items())
        say(f"shards: {place}: {counts}")


def _described(
    height: int | None,
    width: int | None,
    bit_order: BitOrder | None,
    flip: bool | None,
    pad_to_byte: bool,
    drop_columns: list[str] | None,
    axes: Axes | None,
    key: str | None,
) -> dict[str, Any]:
    """Return what the user says of a stream: the options that were given, by name."""
    options = {
        "height": height,
        "width": width,
        "bit_order": bit_order,
        "flip": flip,
        "pad_to_byte": pad_to_byte or None,
        "drop_columns": [range_of("--drop-columns", text) for text in drop_columns or ()] or None,
        "axes": axes,
        "key": key,
    }
    return {name: value for name, value in options.items() if value is not None}


def _open(
    file: Path, described: Mapping[str, Any], threshold: float | None
) -> tuple[SpikeStream, Path, int]:
    """Open a stream as it is described; of a folder, the first that SpikeCV's file in it names.

    Returns the stream, its file, and how many there are.
    """
    from vrtspike.data.spikecv import read_spikecv
    from vrtspike.data.stream import SpikeStream

    if file.is_dir():
        for name in described:
            raise ConfigError(f"{_option(name)} is what the folder's config.yaml says", where=file)
        folder = read_spikecv(file)
        paths = folder.stream_paths()
        return folder.open(paths[0], threshold=threshold), paths[0], len(paths)
    columns = described.get("drop_columns", ())
    others = {name: value for name, value in described.items() if name != "drop_columns"}
    stream = SpikeStream.open(file, threshold=threshold, dropped_columns=columns, **others)
    return stream, file, 1


def _option(name: str) -> str:
    """Return how an option is written."""
    return f"--{name.replace('_', '-')}"
