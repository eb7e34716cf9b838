"""Options that say how a spike stream is stored, and opening it as they say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vrtspike.cli.console import range_of
from vrtspike.errors import ConfigError

if TYPE_CHECKING:
    from vrtspike.spikes.stream import SpikeStream

BitOrder = Literal["little", "big"]
Axes = Literal["shw", "swh", "hsw", "hws", "wsh", "whs"]
OutAxes = Literal["shw", "hws"]
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
Key = Annotated[str | None, typer.Option(help="Name of the array in a .npz, HDF5 or MATLAB file.")]


def describe_stream(
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


def open_stream(
    file: Path, described: Mapping[str, Any], threshold: float | None
) -> tuple[SpikeStream, Path, int]:
    """Open a stream as it is described; of a folder, the first that SpikeCV's file in it names.

    Returns the stream, its file, and how many there are.
    """
    from vrtspike.datasets.spikecv import read_spikecv
    from vrtspike.spikes.stream import SpikeStream

    if file.is_dir():
        for name in described:
            raise ConfigError(
                f"{option_name(name)} is what the folder's config.yaml says", where=file
            )
        folder = read_spikecv(file)
        paths = folder.stream_paths()
        return folder.open(paths[0], threshold=threshold), paths[0], len(paths)
    columns = described.get("drop_columns", ())
    others = {name: value for name, value in described.items() if name != "drop_columns"}
    stream = SpikeStream.open(file, threshold=threshold, dropped_columns=columns, **others)
    return stream, file, 1


def option_name(name: str) -> str:
    """Return how an option is written."""
    return f"--{name.replace('_', '-')}"
