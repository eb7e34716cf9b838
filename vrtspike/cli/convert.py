"""`vrtspike convert`: convert a published dataset, or a spike stream, to another format."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from vrtspike.cli.console import Debug, JsonFile, LayoutOption, command, say
from vrtspike.cli.stream_options import (
    AxesOption,
    BitOrder,
    BitOrderOption,
    DropColumns,
    Flip,
    Height,
    Key,
    PadToByte,
    Width,
    describe_stream,
    open_stream,
    option_name,
)
from vrtspike.errors import ConfigError, DataFormatError

Source = Annotated[
    str, typer.Argument(help="Dataset folder (path or URI), or a spike stream file.")
]
Target = Annotated[
    str,
    typer.Argument(
        help="Dataset folder or spike stream file to write; the suffix sets the format."
    ),
]
OutAxes = Annotated[
    Literal["shw", "hws"] | None,
    typer.Option(help="Order of axes of the written array; default: shw."),
]
OutBitOrder = Annotated[
    BitOrder | None, typer.Option(help="Order of pixels in a written byte; default: little.")
]
OutFlip = Annotated[
    bool | None,
    typer.Option(
        "--out-flip/--no-out-flip",
        help="Write rows bottom-up; default: yes for bit-packed files, no for arrays.",
    ),
]
OutKey = Annotated[str | None, typer.Option(help="Name of the written array; default: spikes.")]


def convert(
    source: Source,
    out: Target,
    layout: LayoutOption = "vrtspike",
    height: Height = None,
    width: Width = None,
    bit_order: BitOrderOption = None,
    flip: Flip = None,
    pad_to_byte: PadToByte = False,
    drop_columns: DropColumns = None,
    axes: AxesOption = None,
    key: Key = None,
    out_axes: OutAxes = None,
    out_bit_order: OutBitOrder = None,
    out_flip: OutFlip = None,
    out_key: OutKey = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Convert a dataset or a spike stream.

    Converts a published dataset to the vrtspike layout, or a stream to another file format.
    """
    with command(json_file, debug) as outcome:
        from vrtspike.datasets.convert import convert as convert_dataset
        from vrtspike.runtime.progress import Progress
        from vrtspike.spikes.write import write_stream
        from vrtspike.storage.folder import Folder, local_path

        described = describe_stream(
            height, width, bit_order, flip, pad_to_byte, drop_columns, axes, key
        )
        writing = {"axes": out_axes, "bit_order": out_bit_order, "flip": out_flip, "key": out_key}
        target, place = local_path(out, "what is converted"), Folder.at(source)
        if not place.remote and not place.path.exists():
            raise DataFormatError("no such file or folder", where=place)
        if place.remote or not place.path.is_file():
            given = [f"out_{name}" for name, value in writing.items() if value is not None]
            if options := [*described, *given]:
                raise ConfigError(
                    f"{option_name(options[0])} is for a single stream",
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
        stream, _, _ = open_stream(place.path, described, None)
        write_stream(
            target, stream, axes=out_axes, bit_order=out_bit_order, flip=out_flip, key=out_key
        )
        outcome.facts = {"stream": str(target), "shape": stream.shape}
        say(f"stream: {target}: {len(stream)} steps of {stream.height}x{stream.width}")
