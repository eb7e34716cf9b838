"""Write bit-packed `.dat` files (`vrtspike.spikes.packed_file` describes the format)."""

from __future__ import annotations

import os

import numpy as np
from jaxtyping import Shaped

from vrtspike.spikes.packed_file import BitOrder, pack_steps
from vrtspike.spikes.stream import SpikeStream
from vrtspike.storage.atomic import whole_file


def write_dat(
    path: str | os.PathLike[str],
    spikes: Shaped[np.ndarray, "s h w"] | SpikeStream,
    *,
    bit_order: BitOrder = "little",
    flip: bool = True,
) -> None:
    """Write spikes (bool, or integers 0 and 1), or a stream in bounded memory.

    If height x width is not a multiple of 8, each step is padded to whole bytes. `flip` stores rows
    bottom-up, as is usual in this format.
    """
    stream = as_stream(spikes, path)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        for _, piece in stream.pieces():
            file.write(pack_steps(piece, bit_order=bit_order, flip=flip).tobytes())


def as_stream(
    spikes: Shaped[np.ndarray, "s h w"] | SpikeStream, path: str | os.PathLike[str]
) -> SpikeStream:
    """Return spikes as a stream; errors of an array name `path`, the file to be written."""
    if isinstance(spikes, SpikeStream):
        return spikes
    return SpikeStream.from_array(spikes, name=os.fspath(path))
