"""`vrtspike preview`: write pictures of a spike stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vrtspike.cli.console import Debug, JsonFile, command, say
from vrtspike.cli.stream_options import (
    AxesOption,
    BitOrderOption,
    DropColumns,
    Flip,
    Height,
    Key,
    PadToByte,
    Width,
    describe_stream,
    open_stream,
)

StreamFile = Annotated[
    Path, typer.Argument(help="Spike stream (.dat, .npy, .npz, .h5), or a SpikeCV folder.")
]
Threshold = Annotated[
    float, typer.Option(help="Charge at which a pixel fires, in steps of full brightness.")
]
SharpFrame = Annotated[
    Path | None, typer.Option(help="Image file: a sharp frame of the same instant to compare with.")
]
Animation = Annotated[
    str | None,
    typer.Option(help="Write an animation of moving averages to this .gif or .mp4 file."),
]


def preview(
    file: StreamFile,
    height: Height = None,
    width: Width = None,
    out: Annotated[str, typer.Option(help="Folder for the images.")] = "preview",
    threshold: Threshold = 2.0,
    center: Annotated[int | None, typer.Option(help="Step to show; default: the middle.")] = None,
    window: Annotated[int, typer.Option(help="Length of the averaged window, in steps.")] = 32,
    bins: Annotated[int, typer.Option(help="Number of voxel bins in the window.")] = 8,
    bit_order: BitOrderOption = None,
    flip: Flip = None,
    pad_to_byte: PadToByte = False,
    drop_columns: DropColumns = None,
    axes: AxesOption = None,
    key: Key = None,
    frame: SharpFrame = None,
    animation: Animation = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Write pictures of a spike stream.

    Shows TFP and TFI reconstructions, bits, voxels, intervals, and optionally an animation.
    """
    with command(json_file, debug) as outcome:
        from vrtspike.report.spike_video import check_animation, write_animation
        from vrtspike.report.spikes import compare, interval_chart, preview, write_preview
        from vrtspike.spikes.intervals import measure_intervals
        from vrtspike.storage.folder import check_target, local_path

        described = describe_stream(
            height, width, bit_order, flip, pad_to_byte, drop_columns, axes, key
        )
        images = local_path(out, "a preview")
        check_target(images / "tfp.png")
        stream, shown, count = open_stream(file, described, threshold)
        movie = local_path(animation, "an animation") if animation else None
        if movie is not None:
            check_animation(movie, len(stream), window=window)
            check_target(movie)
        figures = measure_intervals(stream)
        pictures = preview(stream, center=center, window=window, bins=bins, frame=frame)
        outcome.facts = {"file": str(shown), "streams": count}
        outcome.facts |= {"height": stream.height, "width": stream.width, **figures.facts()}
        if frame is not None:
            outcome.facts["psnr"] = compare(pictures, frame)
        files = write_preview(pictures, images, {"intervals": interval_chart(figures)})
        if movie is not None:
            write_animation(stream, movie, window=window)
            files.append(movie)
        outcome.facts["files"] = [str(path) for path in files]
        if count > 1:
            say(f"{file}: {count} streams, of which the first is shown")
        say(f"{shown}: {len(stream)} steps of {stream.height}x{stream.width}")
        _say_figures(figures.facts())
        for name, psnr in outcome.facts.get("psnr", {}).items():
            say(f"{name} against {frame}: {psnr:.2f} dB")
        say("wrote " + " ".join(str(path) for path in files))


def _say_figures(facts: dict[str, Any]) -> None:
    """Print the statistics of a stream's intervals, one on each line."""
    for name, value in facts.items():
        if value is not None and name != "steps":
            say(f"{name.replace('_', ' ')}: {value:.4g}")
