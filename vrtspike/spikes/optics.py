"""What the two cameras make of RGB light: colour, encoding and resolution.

In: gamma-encoded RGB in [0, 1]. Out: the light that each pixel of the spike camera integrates, and
the mean that the blurred frame is.

- gray: BT.601 luma of the encoded RGB. bayer: each pixel sees one channel, in an RGGB mosaic (R at
  even rows and columns, B at odd ones), as colour spike cameras do; still one bit a pixel.
- gamma: light is the encoded value, as in published datasets. linear: the encoded gray or channel
  is made linear (sRGB), as a real photodiode is; then the spike rate is that of real light, and
  `srgb.encode(threshold * rate)` is what compares with frames.
- A coarser grid collects the mean over the area of its pixels, after that.
- blur: the mean over the exposure is taken of encoded values, as in GoPro's folder `blur`, or of
  linear light and encoded again, as in `blur_gamma`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from vrtspike.config.camera import CameraSettings
from vrtspike.spikes.gray import box_reduce, luma
from vrtspike.spikes.srgb import encode, linearise

RGGB = ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2))
"""First row, first column and channel of each quarter of the pixels."""


@dataclass(frozen=True)
class Optics:
    """How light reaches the pixels and the blurred frame; the defaults are published datasets'."""

    color: Literal["gray", "bayer"] = "gray"
    light: Literal["gamma", "linear"] = "gamma"
    blur: Literal["gamma", "linear"] = "gamma"
    downscale: int = 1

    def at_pixels(self, rgb: Float[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n hs ws"]:
        """Return the light at the spike camera's pixels."""
        if self.color == "gray":
            return self._collect(luma(rgb))
        n, height, width, _ = rgb.shape
        mosaic = np.empty((n, height // self.downscale, width // self.downscale), np.float32)
        for channel in range(3):
            seen = self._collect(rgb[..., channel])
            for y, x, color in RGGB:
                if color == channel:
                    mosaic[:, y::2, x::2] = seen[:, y::2, x::2]
        return mosaic

    def _collect(self, values: Float[np.ndarray, "n h w"]) -> Float[np.ndarray, "n hs ws"]:
        """Average encoded values, or the light that they stand for, over the pixels."""
        return box_reduce(linearise(values) if self.light == "linear" else values, self.downscale)

    def to_blur(self, rgb: Float[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n h w 3"]:
        """Return the values whose mean makes the blurred frame."""
        return linearise(rgb) if self.blur == "linear" else rgb

    def from_blur(self, mean: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
        """Return the gamma-encoded frame of a mean of `to_blur`."""
        return encode(mean) if self.blur == "linear" else mean


def build_optics(settings: CameraSettings) -> Optics:
    """Return the optics that the settings name."""
    return Optics(settings.color, settings.light, settings.blur, settings.downscale)
