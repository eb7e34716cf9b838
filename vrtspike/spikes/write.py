"""Write a stream in any format; converting between formats is one call.

In: spikes in memory or a `SpikeStream`. Out: a file in the format of its suffix (see
`vrtspike.spikes.stream`), written atomically and in bounded memory. Arrays have one byte for each
spike, 0 or 1, which all readers of these formats understand. Their order of axes is `shw` (steps
first) or `hws` (steps last). In `.npy` and `.npz`, `hws` is stored in Fortran order (first index
fastest), so that one step follows the other in the file. The same spikes give the same bytes.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Shaped
from numpy.lib import format as npy

from vrtspike.errors import ConfigError
from vrtspike.spikes.array_file import Axes
from vrtspike.spikes.hdf5_sink import Hdf5Sink
from vrtspike.spikes.packed_file import BitOrder
from vrtspike.spikes.packed_writer import as_stream, write_dat
from vrtspike.spikes.stream import ARRAY_SUFFIXES, PACKED_SUFFIXES, SpikeStream, refuse_settings
from vrtspike.storage.atomic import whole_file

DEFAULT_KEY = "spikes"
CHUNK = (16, 128, 128)
"""Most steps, rows and columns of an HDF5 chunk: 256 KiB before compression."""


def write_stream(
    path: str | os.PathLike[str],
    spikes: Shaped[np.ndarray, "s h w"] | SpikeStream,
    *,
    axes: Axes | None = None,
    key: str | None = None,
    bit_order: BitOrder | None = None,
    flip: bool | None = None,
) -> None:
    """Write spikes `(s, h, w)` in the format of the file's suffix.

    `flip`: store rows bottom-up (default: true for bit-packed files, false for arrays). For
    bit-packed files only: `bit_order` (default: little). For arrays only: `axes` (default: shw) and
    `key`, the name of the array in a `.npz` or HDF5 file (default: spikes). Raises ConfigError for
    settings of another format.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in PACKED_SUFFIXES:
        refuse_settings(path, axes=axes, key=key)
        rows_flipped = True if flip is None else flip
        write_dat(path, spikes, bit_order=bit_order or "little", flip=rows_flipped)
        return
    refuse_settings(path, bit_order=bit_order, **({"key": key} if suffix == ".npy" else {}))
    if axes not in (None, "shw", "hws"):
        raise ConfigError("unknown order of axes", where=path, got=axes, expected="shw or hws")
    if key is not None and not key.strip("/. "):
        raise ConfigError("the key must name an array", where=path, got=repr(key))
    stream, order, name = as_stream(spikes, path), axes or "shw", key or DEFAULT_KEY
    match suffix:
        case ".npy":
            with whole_file(path) as temporary, temporary.open("wb") as file:
                _write_npy(file, stream, order, bool(flip))
        case ".npz":
            with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
                # A ZipInfo has a fixed date, so that the bytes depend on the spikes alone.
                member = zipfile.ZipInfo(f"{name}.npy")
                with archive.open(member, "w", force_zip64=True) as file:
                    _write_npy(file, stream, order, bool(flip))
        case ".h5" | ".hdf5":
            with whole_file(path) as temporary:
                _write_hdf5(temporary, stream, order, name, bool(flip))
        case _:
            raise ConfigError(
                "the suffix names no format of spikes",
                where=path,
                got=suffix or "no suffix",
                expected=", ".join(s for s in PACKED_SUFFIXES + ARRAY_SUFFIXES if s != ".mat"),
            )


def _write_npy(file: IO[bytes], stream: SpikeStream, axes: Axes, flip: bool) -> None:
    """Write a `.npy` of uint8, piece by piece."""
    steps, height, width = stream.shape
    shape = (steps, height, width) if axes == "shw" else (height, width, steps)
    header = {"descr": "|u1", "fortran_order": axes == "hws", "shape": shape}
    npy.write_array_header_1_0(file, header)
    for _, piece in stream.pieces():
        rows = piece[:, ::-1] if flip else piece
        # Fortran order of (h, w, s): rows vary fastest, then columns, then steps.
        ordered = rows if axes == "shw" else rows.transpose(0, 2, 1)
        file.write(ordered.tobytes())


def _write_hdf5(path: Path, stream: SpikeStream, axes: Axes, key: str, flip: bool) -> None:
    """Write an HDF5 dataset of uint8 in compressed chunks; raise the OSError of a full disk."""
    import h5py

    steps, height, width = stream.shape
    chunk = tuple(min(most, size) for most, size in zip(CHUNK, stream.shape, strict=True))
    # Write whole chunks, because a chunk that is written twice is compressed twice.
    chunk = (min(chunk[0], stream.piece_steps), *chunk[1:])
    piece_steps = stream.piece_steps // chunk[0] * chunk[0]
    shape = (steps, height, width)
    if axes == "hws":
        shape, chunk = (height, width, steps), (*chunk[1:], chunk[0])
    with path.open("w+b") as file:
        sink = Hdf5Sink(file)
        with h5py.File(sink, "w") as hdf5:
            data = hdf5.create_dataset(
                key, shape, "u1", chunks=chunk, compression="gzip", compression_opts=1
            )
            for start, piece in stream.pieces(steps=piece_steps):
                if sink.error is not None:
                    break
                rows = (piece[:, ::-1] if flip else piece).view(np.uint8)
                stop = start + len(piece)
                if axes == "shw":
                    data[start:stop] = rows
                else:
                    data[:, :, start:stop] = np.moveaxis(rows, 0, -1)
        if sink.error is not None:
            raise sink.error
