"""Random crop and flips of a sample, the same for its frames and its spikes.

In: frames `(t, h, w, 3)` as stored. Out: frames cropped to a square of `size` pixels, and the
position of the crop on the grid of spike pixels. The spike grid may be coarser than the frame by an
integer factor `grid`; crops then start on spike pixels, so that both show the same rectangle. The
order is: crop, reversal in time, vertical flip, horizontal flip, transposition.

A reversal in time reverses the order of the frames and of the spike steps inside each frame.
`Timeline.reversed` gives the new positions of the exposure and the target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from vrtspike.errors import ConfigError


@dataclass(frozen=True)
class Augmentation:
    """The crop, in frame pixels, and the flips of a sample."""

    top: int
    left: int
    size: int
    flip_h: bool = False
    flip_v: bool = False
    transpose: bool = False
    reverse_time: bool = False

    def frames(self, frames: Shaped[np.ndarray, "t h w c"]) -> Shaped[np.ndarray, "t n n c"]:
        """Crop, flip and transpose frames; n is `size`."""
        return np.ascontiguousarray(self.turned(self.window(frames), row_axis=1))

    def window(self, frames: Shaped[np.ndarray, "t h w c"]) -> Shaped[np.ndarray, "t n n c"]:
        """Crop frames and reverse their order, without flips; return a view."""
        part = frames[:, self.top : self.top + self.size, self.left : self.left + self.size]
        return part[::-1] if self.reverse_time else part

    def on_grid(self, grid: int) -> tuple[slice, slice]:
        """Return the rows and columns of the crop on a grid that is `grid` times coarser.

        Raise ConfigError if the crop is not a whole number of pixels there.
        """
        if self.top % grid or self.left % grid or self.size % grid:
            raise ConfigError(
                "the crop does not lie on the spike grid",
                got=f"{self.size}x{self.size} at ({self.top}, {self.left})",
                expected=f"multiples of {grid}",
            )
        top, left, size = self.top // grid, self.left // grid, self.size // grid
        return slice(top, top + size), slice(left, left + size)

    def turned(self, part: Shaped[np.ndarray, "..."], row_axis: int) -> Shaped[np.ndarray, "..."]:
        """Flip and transpose the axes `row_axis` and `row_axis + 1`; return a view."""
        if self.flip_v:
            part = np.flip(part, row_axis)
        if self.flip_h:
            part = np.flip(part, row_axis + 1)
        return part.swapaxes(row_axis, row_axis + 1) if self.transpose else part


def draw_augmentation(
    rng: np.random.Generator,
    height: int,
    width: int,
    crop: int,
    enabled: bool,
    *,
    grid: int = 1,
) -> Augmentation:
    """Draw a crop of a frame and, if `enabled`, flips in space and time.

    Every call draws the same number of random numbers. Raise ConfigError if the crop is larger than
    the frame or not a multiple of `grid`.
    """
    if crop > min(height, width):
        raise ConfigError(
            "the crop is larger than the frame",
            got=crop,
            expected=f"at most {min(height, width)}",
            fix="lower data.crop",
        )
    if crop % grid:
        raise ConfigError(
            "the crop does not fit the spike grid", got=crop, expected=f"a multiple of {grid}"
        )
    position, flips = rng.random(2), rng.random(4) < 0.5
    top, left = (
        int(u * ((extent - crop) // grid + 1)) * grid
        for u, extent in zip(position, (height, width), strict=True)
    )
    flip_h, flip_v, transpose, reverse = (bool(coin and enabled) for coin in flips)
    return Augmentation(top, left, crop, flip_h, flip_v, transpose, reverse)
