"""`vrtspike convert`: a published dataset, or a stream, in another format."""

from __future__ import annotations

from typing import Annotated

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
    OutAxes,
    PadToByte,
    Width,
    describe_stream,
    open_stream,
    option_name,
)
from vrtspike.errors import ConfigError, DataFormatError


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
    out_axes: Annotated[
        OutAxes | None, typer.Option(help="Axes of an array that is written.")
    ] = None,
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
