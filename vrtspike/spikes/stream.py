"""Spike streams: one interface to all file formats; slices and crops read only what they need.

In: a file and the facts that files do not contain (geometry, order of axes, rate, threshold). Out:
bool spikes `(s, h, w)`, rows top-down. The suffix decides the format:

    .dat .raw .bin      bit-packed (`vrtspike.spikes.packed_file`): height and width must be given
    .npy .npz .h5 .hdf5 .mat arrays (`vrtspike.spikes.array_file`): axes must be given
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.typing import NDArray

from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.spikes.array_file import HDF5_MARK, Axes, memory_source, open_array
from vrtspike.spikes.packed_file import BitOrder, PackedSource, open_packed, step_layout
from vrtspike.spikes.source import Box, SpikeSource, file_size

PACKED_SUFFIXES = (".dat", ".raw", ".bin")
ARRAY_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".mat")
ARRAY_MARKS = {
    b"\x93NUMPY": ".npy",
    b"PK\x03\x04": ".npz",
    HDF5_MARK: ".h5",
    b"MATLAB 5.0 MAT-file": ".mat",
    b"MATLAB 7.3 MAT-file": ".mat",
}
"""How files of arrays begin."""
PIECE_BYTES = 2**24
"""Bytes (one for each spike) to read at a time from a stream that is processed in pieces."""


@dataclass(frozen=True, eq=False)
class SpikeStream:
    """A stream of spikes `(s, h, w)`; slices and crops read only what they need.

    Create one with `SpikeStream.open` or `SpikeStream.from_array`. `rate_hz` is the number of steps
    per second, `threshold` the charge at which a pixel fires, in steps of full brightness; both may
    be None.
    """

    source: SpikeSource
    rate_hz: float | None
    threshold: float | None
    box: Box

    def __post_init__(self) -> None:
        for name, value in (("rate_hz", self.rate_hz), ("threshold", self.threshold)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(
                    f"{name} must be positive and finite", where=self.source.path, got=value
                )

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        height: int | None = None,
        width: int | None = None,
        bit_order: BitOrder | None = None,
        flip: bool | None = None,
        rate_hz: float | None = None,
        threshold: float | None = None,
        steps: int | None = None,
        pad_to_byte: bool = False,
        dropped_columns: Sequence[tuple[int, int]] = (),
        axes: Axes | None = None,
        key: str | None = None,
    ) -> SpikeStream:
        """Open a file of any format.

        `height`, `width`: size of the picture in pixels; required for bit-packed files, checked for
        others.
        `flip`: rows are stored bottom-up (default: true for bit-packed files, false for arrays).
        `steps`: number of steps that the file must contain, if known.
        For bit-packed files only: `bit_order` (default: little), `pad_to_byte`, `dropped_columns`
        (`vrtspike.spikes.packed_file` describes them).
        For arrays only: `axes` (required); `key`, the name of the array in a `.npz` or HDF5 file
        (required if it contains several).

        Raises ConfigError for missing settings and for settings of another format, DataFormatError
        if the file does not match them.
        """
        path = Path(path)
        source: SpikeSource
        if path.suffix.lower() in ARRAY_SUFFIXES:
            packed = {"bit_order": bit_order, "pad_to_byte": pad_to_byte or None}
            refuse_settings(path, **packed, dropped_columns=dropped_columns or None)
            source = open_array(path, axes=axes, key=key, flip=bool(flip))
        else:
            _check_is_packed(path)
            refuse_settings(path, axes=axes, key=key)
            source = open_packed(
                path,
                height,
                width,
                bit_order=bit_order or "little",
                flip=True if flip is None else flip,
                dropped_columns=dropped_columns,
                pad_to_byte=pad_to_byte,
            )
        _check_shape(source, steps, height, width)
        return cls(source, rate_hz, threshold, Box(0, 0, *source.shape[1:]))

    @classmethod
    def from_array(
        cls,
        spikes: Shaped[np.ndarray, "s h w"],
        *,
        rate_hz: float | None = None,
        threshold: float | None = None,
        name: str = "an array in memory",
    ) -> SpikeStream:
        """Return a stream of an array (bool, or numbers of 0 and 1); `name` is its name in errors.

        The array is not copied, so it must not change.
        """
        source = memory_source(spikes, name)
        return cls(source, rate_hz, threshold, Box(0, 0, *source.shape[1:]))

    @property
    def path(self) -> Path | None:
        """Return the file, or None if the spikes are in memory."""
        return self.source.path

    @property
    def height(self) -> int:
        """Return the height of the picture, or of the crop, in pixels."""
        return self.box.height

    @property
    def width(self) -> int:
        """Return the width of the picture, or of the crop, in pixels."""
        return self.box.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (steps, height, width)."""
        return len(self), self.height, self.width

    @property
    def packed(self) -> NDArray[np.uint8]:
        """Return the memory-mapped bytes of a bit-packed file, `(s, bytes per step)`.

        A crop does not change them.
        """
        if not isinstance(self.source, PackedSource):
            raise ConfigError("only a bit-packed file has packed bytes", where=self.path)
        return self.source.packed

    def __len__(self) -> int:
        return self.source.shape[0]

    def __getitem__(self, steps: slice) -> Bool[np.ndarray, "s h w"]:
        """Read the steps `[s0:s1]`; raise DataFormatError if they are not all in the stream."""
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
        return self.source.read(start, stop, self.box)

    def crop(self, top: int, left: int, height: int, width: int) -> SpikeStream:
        """Return a view of a rectangle (pixels), which reads only the bytes of that rectangle.

        Raises DataFormatError if the rectangle is not inside the picture.
        """
        inside = top >= 0 and left >= 0 and height > 0 and width > 0
        if not inside or top + height > self.height or left + width > self.width:
            raise DataFormatError(
                "the crop leaves the stream",
                where=self.path,
                got=f"{height}x{width} at ({top}, {left})",
                expected=f"within {self.height}x{self.width}",
            )
        return replace(self, box=Box(self.box.top + top, self.box.left + left, height, width))

    @property
    def piece_steps(self) -> int:
        """Return the default number of steps in a piece of `pieces`: about 16 MiB of spikes."""
        return max(1, PIECE_BYTES // (self.height * self.width))

    def pieces(
        self, start: int = 0, stop: int | None = None, *, steps: int | None = None
    ) -> Iterator[tuple[int, Bool[np.ndarray, "s h w"]]]:
        """Yield the steps `[start, stop)` in pieces of `steps` steps: (first step, spikes)."""
        stop = len(self) if stop is None else stop
        size = self.piece_steps if steps is None else steps
        for first in range(start, stop, size):
            yield first, self[first : min(first + size, stop)]


def _check_is_packed(path: Path) -> None:
    """Raise DataFormatError for a file whose name or beginning is not that of a bit-packed file."""
    file_size(path)
    suffix = path.suffix.lower()
    if suffix not in PACKED_SUFFIXES:
        raise DataFormatError(
            "the suffix names no format of spikes",
            where=path,
            got=suffix or "no suffix",
            expected=", ".join(PACKED_SUFFIXES + ARRAY_SUFFIXES),
            fix=_format_of(path) or "name a bit-packed file .dat",
        )
    if fix := _format_of(path):
        raise DataFormatError(
            "the file is not bit-packed, as its suffix says",
            where=path,
            got="an array of another format",
            fix=fix,
        )


def _format_of(path: Path) -> str | None:
    """Return the advice on a file that begins as a file of arrays does; None: it does not."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError:
        return None  # said by who reads it
    for mark, suffix in ARRAY_MARKS.items():
        if head.startswith(mark):
            return f"name it {suffix}, and give its axes (--axes)"
    return None


def refuse_settings(path: Path, **settings: object) -> None:
    """Raise ConfigError for the first setting that is not None: it does not apply to the format."""
    for name, value in settings.items():
        if value is not None:
            raise ConfigError(
                f"{name} says nothing of a file of this format",
                where=path,
                got=value,
                fix=f"leave out {name}, or correct the file's suffix",
            )


def _check_shape(
    source: SpikeSource, steps: int | None, height: int | None, width: int | None
) -> None:
    """Raise DataFormatError if a file has another size, or another number of steps, than given."""
    got_steps, *size = source.shape
    expected = [size[0] if height is None else height, size[1] if width is None else width]
    if size != expected:
        raise DataFormatError(
            "the file holds pictures of another size",
            where=source.path,
            got="{}x{}".format(*size),
            expected="{}x{}".format(*expected),
            fix="correct height and width, or axes if they are exchanged",
        )
    if steps is not None and got_steps != steps:
        layout = ""
        if isinstance(source, PackedSource):
            layout = f" of {step_layout(*source.shape[1:], source.stored_width)}"
        raise DataFormatError(
            "the file holds another number of steps",
            where=source.path,
            got=f"{got_steps} steps",
            expected=f"{steps} steps{layout}",
            fix="correct height, width or the number of steps",
        )
