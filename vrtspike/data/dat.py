"""Bit-packed spike streams: memory-mapped reading, atomic writing.

A `.dat` file is frame-major: one bit a pixel, steps one after the other, no header. `bit_order` is
the order of the pixels in a byte (`little`: the first pixel is the least significant bit, as the
field writes it), `flip` says that rows are stored bottom-up. The geometry is given, never guessed:
a file that is not a whole number of steps is refused.

Where h * w is not a multiple of 8 the field has no common rule. vrtspike writes such steps padded
to whole bytes, ceil(h * w / 8) each; `pad_to_byte` says that a file does so, and a file of such a
geometry is refused without it.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.typing import NDArray

from vrtspike.errors import ConfigError, DataFormatError

BitOrder = Literal["little", "big"]


def bytes_per_step(height: int, width: int) -> int:
    """Return how many bytes one step takes, padded to whole bytes."""
    return -(-height * width // 8)


@dataclass(frozen=True, eq=False)
class SpikeStream:
    """A stream `(s, h, w)` of spikes on disk, of which slices and crops read only what they need.

    `rate_hz` (steps a second) and `threshold` are carried for those who need them; no file says
    them. Open one with `SpikeStream.open`.
    """

    path: Path
    height: int
    width: int
    bit_order: BitOrder
    flip: bool
    rate_hz: float | None
    threshold: float | None
    packed: NDArray[np.uint8]
    full_height: int
    full_width: int
    top: int = 0
    left: int = 0

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        height: int,
        width: int,
        bit_order: BitOrder = "little",
        flip: bool = True,
        rate_hz: float | None = None,
        threshold: float | None = None,
        steps: int | None = None,
        pad_to_byte: bool = False,
    ) -> SpikeStream:
        """Map a `.dat` file of the given geometry; `steps` is how many it must hold, if known."""
        path = Path(path)
        if height <= 0 or width <= 0:
            raise ConfigError("spike geometry must be positive", got=f"{height}x{width}")
        if bit_order not in ("little", "big"):
            raise ConfigError("unknown bit order", got=bit_order, expected="little or big")
        for name, value in (("rate_hz", rate_hz), ("threshold", threshold)):
            if value is not None and value <= 0:
                raise ConfigError(f"{name} must be positive", got=value)
        if height * width % 8 and not pad_to_byte:
            raise DataFormatError(
                "height x width is not a multiple of 8, and files differ in how they then pad",
                where=path,
                got=f"{height}x{width}",
                expected="a multiple of 8 pixels a step",
                fix="correct the geometry, or pass pad_to_byte=True if each step ends on a byte",
            )
        step_bytes = bytes_per_step(height, width)
        count = _whole_steps(path, step_bytes, height, width, steps)
        try:
            packed = np.memmap(path, np.uint8, "r", shape=(count, step_bytes))
        except OSError as error:
            raise DataFormatError(
                f"cannot read the stream: {error.strerror}", where=path
            ) from error
        return cls(path, height, width, bit_order, flip, rate_hz, threshold, packed, height, width)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (steps, height, width)."""
        return len(self.packed), self.height, self.width

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, steps: slice) -> Bool[np.ndarray, "s h w"]:
        """Read the steps `[s0:s1]`; a range that leaves the stream is an error, never clipped."""
        if not isinstance(steps, slice) or steps.step not in (None, 1):
            raise TypeError("a SpikeStream is read by slices of step 1, as stream[s0:s1]")
        start = 0 if steps.start is None else steps.start
        stop = len(self) if steps.stop is None else steps.stop
        if not 0 <= start <= stop <= len(self):
            raise DataFormatError(
                "the window leaves the stream",
                where=self.path,
                got=f"[{start}, {stop})",
                expected=f"steps within [0, {len(self)})",
            )
        return self._read(start, stop)

    def crop(self, top: int, left: int, height: int, width: int) -> SpikeStream:
        """Return a view of a rectangle, which reads only the bytes that hold it."""
        inside = top >= 0 and left >= 0 and height > 0 and width > 0
        if not inside or top + height > self.height or left + width > self.width:
            raise DataFormatError(
                "the crop leaves the stream",
                where=self.path,
                got=f"{height}x{width} at ({top}, {left})",
                expected=f"within {self.height}x{self.width}",
            )
        return replace(self, top=self.top + top, left=self.left + left, height=height, width=width)

    def _read(self, start: int, stop: int) -> Bool[np.ndarray, "s h w"]:
        """Unpack the bytes of the crop's rows, and of its columns where rows end on bytes."""
        row = self.full_height - self.top - self.height if self.flip else self.top
        right = self.left + self.width
        if self.full_width % 8 == 0:
            rows = self.packed[start:stop].reshape(
                stop - start, self.full_height, self.full_width // 8
            )
            part = rows[:, row : row + self.height, self.left // 8 : -(-right // 8)]
            bits = np.unpackbits(np.ascontiguousarray(part), axis=-1, bitorder=self.bit_order)
            skip = self.left % 8
            pixels = bits[:, :, skip : skip + self.width]
        else:
            first = row * self.full_width
            last = first + self.height * self.full_width
            part = np.ascontiguousarray(self.packed[start:stop, first // 8 : -(-last // 8)])
            bits = np.unpackbits(part, axis=-1, bitorder=self.bit_order)
            bits = bits[:, first % 8 : first % 8 + last - first]
            pixels = bits.reshape(-1, self.height, self.full_width)[:, :, self.left : right]
        if self.flip:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels).view(np.bool_)


def write_dat(
    path: str | os.PathLike[str],
    spikes: Shaped[np.ndarray, "s h w"],
    *,
    bit_order: BitOrder = "little",
    flip: bool = True,
) -> None:
    """Write spikes (bool, or integers of 0 and 1) so that the file is whole or not there."""
    path = Path(path)
    if spikes.ndim != 3:
        raise DataFormatError(
            "spikes must be (s, h, w)", where=path, got=f"an array of shape {spikes.shape}"
        )
    if spikes.dtype != np.bool_ and spikes.size and not 0 <= spikes.min() <= spikes.max() <= 1:
        raise DataFormatError(
            "spikes must be 0 or 1",
            where=path,
            got=f"values {spikes.min()} to {spikes.max()}",
            fix="a voxel grid or an image is not a stream",
        )
    rows = spikes[:, ::-1] if flip else spikes
    packed = np.packbits(rows.reshape(len(spikes), -1) != 0, axis=-1, bitorder=bit_order)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(packed.tobytes())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _whole_steps(path: Path, step_bytes: int, height: int, width: int, steps: int | None) -> int:
    """Return how many steps a file holds, or refuse it with the likely reason."""
    if not path.exists():
        raise DataFormatError("no such spike file", where=path)
    if not path.is_file():
        raise DataFormatError("a spike stream must be a file", where=path, got="a folder")
    size = path.stat().st_size
    whole = f"{height}x{width} at 1 bit a pixel, {step_bytes} bytes a step"
    if size == 0:
        raise DataFormatError("the spike file is empty", where=path, expected=whole)
    count, rest = divmod(size, step_bytes)
    if rest:
        raise DataFormatError(
            "the file is not a whole number of steps",
            where=path,
            got=f"{size} bytes = {count} steps + {rest} bytes",
            expected=whole,
            fix="correct height and width, or copy the file again if it was cut off",
        )
    if steps is not None and count != steps:
        raise DataFormatError(
            "the file holds another number of steps",
            where=path,
            got=f"{count} steps ({size} bytes)",
            expected=f"{steps} steps of {whole}",
            fix="correct height, width or the number of steps",
        )
    return count
