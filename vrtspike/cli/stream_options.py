"""Options that describe the format of a spike stream, and opening it with them."""

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
Height = Annotated[int | None, typer.Option(help="Height of the picture, in pixels.")]
Width = Annotated[int | None, typer.Option(help="Width of the picture, in pixels.")]
BitOrderOption = Annotated[
    BitOrder | None,
    typer.Option(help="Order of pixels in a byte of a bit-packed file; default: little."),
]
Flip = Annotated[
    bool | None,
    typer.Option(
        "--flip/--no-flip",
        help="Rows are stored bottom-up; default: yes for bit-packed files, no for arrays.",
    ),
]
PadToByte = Annotated[bool, typer.Option(help="Each step is padded to whole bytes.")]
DropColumns = Annotated[
    list[str] | None,
    typer.Option(help="Stored columns that are not pixels, such as 400:416; may be repeated."),
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
    """Return the options that the user has given, by name."""
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
    """Open a stream file with the options `described`, or the first stream of a SpikeCV folder.

    Returns the stream, its file, and the number of streams. Raises ConfigError if options are given
    for a folder, whose config.yaml describes the format.
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
    options = {name: value for name, value in described.items() if name != "drop_columns"}
    stream = SpikeStream.open(file, threshold=threshold, dropped_columns=columns, **options)
    return stream, file, 1


def option_name(name: str) -> str:
    """Return an option as typed on the command line: `--drop-columns` for `drop_columns`."""
    return f"--{name.replace('_', '-')}"
