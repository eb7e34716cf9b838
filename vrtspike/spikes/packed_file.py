"""Bit-packed spikes (`.dat` files of spike cameras): read them memory-mapped, and pack spikes.

A file has no header. It stores one step after the other, with one bit for each pixel. `bit_order`
is the order of the pixels in a byte; with `little`, the usual one, the first pixel is the least
significant bit. `flip` means that rows are stored bottom-up. The caller must give the geometry; a
file that is not a whole number of steps is an error.

Raw dumps of some cameras contain columns that are not pixels. `dropped_columns` lists them as
half-open ranges of stored columns; height and width are those of the remaining picture. A dump of
the first camera, 400 pixels wide, is stored 416 wide: drop [400, 416). A dump of 1000 columns over
PCIe is stored 1024 wide: drop [500, 512) and [1012, 1024).

If the stored pixels of a step are not a multiple of 8, there is no common rule. vrtspike pads each
step to whole bytes, ceil(pixels / 8). Set `pad_to_byte` to read such a file; otherwise it is an
error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, UInt8
from numpy.typing import NDArray

from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.spikes.source import Box, file_size, unreadable

BitOrder = Literal["little", "big"]


def bytes_per_step(height: int, width: int) -> int:
    """Return the bytes of one step, padded to whole bytes."""
    return -(-height * width // 8)


def pack_steps(
    spikes: Bool[np.ndarray, "s h w"], *, bit_order: BitOrder, flip: bool
) -> UInt8[np.ndarray, "s bytes"]:
    """Pack the pixels of each step into bits, padded to whole bytes."""
    rows = spikes[:, ::-1] if flip else spikes
    return np.packbits(rows.reshape(len(spikes), -1), axis=-1, bitorder=bit_order)


@dataclass(frozen=True, eq=False)
class PackedSource:
    """A bit-packed file.

    `packed`: its memory-mapped bytes, `(s, bytes per step)`. `columns`: the stored column of each
    column of the picture, ascending.
    """

    path: Path
    shape: tuple[int, int, int]
    bit_order: BitOrder
    flip: bool
    stored_width: int
    columns: Int[np.ndarray, " w"]
    packed: NDArray[np.uint8]

    def read(self, start: int, stop: int, box: Box) -> Bool[np.ndarray, "s h w"]:
        """Read the steps [start, stop) of a box.

        It unpacks only the bytes of the box; if rows do not start at a byte, whole rows.
        """
        rows = box.stored_rows(self.shape[1], self.flip)
        columns = self.columns[box.left : box.left + box.width]
        left, right = int(columns[0]), int(columns[-1]) + 1
        if self.stored_width % 8 == 0:
            row_bytes = self.stored_width // 8
            stored = self.packed[start:stop].reshape(stop - start, self.shape[1], row_bytes)
            part = np.ascontiguousarray(stored[:, rows, left // 8 : -(-right // 8)])
            # Unpack a flat array: along an axis, NumPy would make one call for each row.
            flat = np.unpackbits(part.reshape(-1), bitorder=self.bit_order)
            bits = flat.reshape(*part.shape[:2], 8 * part.shape[2])
            pixels = bits[:, :, left % 8 : left % 8 + right - left]
        else:
            first, last = rows.start * self.stored_width, rows.stop * self.stored_width
            part = np.ascontiguousarray(self.packed[start:stop, first // 8 : -(-last // 8)])
            bits = np.unpackbits(part, axis=-1, bitorder=self.bit_order)
            bits = bits[:, first % 8 : first % 8 + last - first]
            pixels = bits.reshape(-1, box.height, self.stored_width)[:, :, left:right]
        if right - left != box.width:
            pixels = pixels[:, :, columns - left]
        if self.flip:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels).view(np.bool_)


def open_packed(
    path: Path,
    height: int | None,
    width: int | None,
    *,
    bit_order: BitOrder,
    flip: bool,
    dropped_columns: Sequence[tuple[int, int]],
    pad_to_byte: bool,
) -> PackedSource:
    """Memory-map a bit-packed file whose picture is `height` x `width` pixels.

    Raises ConfigError for wrong arguments, and DataFormatError if the file does not match them.
    """
    if height is None or width is None:
        raise ConfigError(
            "height and width of a bit-packed file must be given, for it has no header", where=path
        )
    if height <= 0 or width <= 0:
        raise ConfigError("spike geometry must be positive", got=f"{height}x{width}")
    if bit_order not in ("little", "big"):
        raise ConfigError("unknown bit order", got=bit_order, expected="little or big")
    columns = kept_columns(width, dropped_columns)
    stored_width = width + sum(stop - start for start, stop in dropped_columns)
    size = file_size(path)
    if height * stored_width % 8 and not pad_to_byte:
        raise DataFormatError(
            "height x width is not a multiple of 8, and files differ in how they then pad",
            where=path,
            got=f"{height}x{stored_width}",
            expected="a multiple of 8 pixels a step",
            fix="correct the geometry, or pass pad_to_byte=True (--pad-to-byte) if each step ends "
            "on a byte",
        )
    step_bytes = bytes_per_step(height, stored_width)
    count, rest = divmod(size, step_bytes)
    if rest:
        raise DataFormatError(
            "the file is not a whole number of steps",
            where=path,
            got=f"{size} bytes = {count} steps + {rest} bytes",
            expected=step_layout(height, width, stored_width),
            fix="correct height, width and dropped_columns, or copy the file again if it was cut "
            "off",
        )
    try:
        packed = np.memmap(path, np.uint8, "r", shape=(count, step_bytes))
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return PackedSource(
        path, (count, height, width), bit_order, flip, stored_width, columns, packed
    )


def kept_columns(width: int, dropped: Sequence[tuple[int, int]]) -> Int[np.ndarray, " w"]:
    """Return the stored column of each column of the picture, ascending."""
    stored = width + sum(stop - start for start, stop in dropped)
    is_pixel = np.ones(max(stored, 0), bool)
    for start, stop in dropped:
        if not 0 <= start < stop <= stored or not is_pixel[start:stop].all():
            raise ConfigError(
                "dropped_columns must be ranges of stored columns that do not overlap",
                got=", ".join(f"[{a}, {b})" for a, b in dropped),
                expected=f"0 <= start < stop <= {stored}, the stored width "
                f"({width} columns and those dropped)",
            )
        is_pixel[start:stop] = False
    return np.flatnonzero(is_pixel)


def step_layout(height: int, width: int, stored_width: int) -> str:
    """Describe the layout of a step, for error messages."""
    stored = "" if stored_width == width else f" stored {stored_width} wide"
    step_bytes = bytes_per_step(height, stored_width)
    return f"{height}x{width}{stored} at 1 bit a pixel, {step_bytes} bytes a step"
