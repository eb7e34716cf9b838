"""How the two cameras see RGB light: colour, encoding and resolution.

In: gamma-encoded RGB in [0, 1]. Out: the light that each pixel of the spike camera integrates, and
the values whose mean is the blurred frame.

- `color`: with `gray`, a pixel sees the BT.601 luma of the encoded RGB. With `bayer`, each pixel
  sees one channel of an RGGB mosaic (R at even rows and columns, B at odd ones), as in colour spike
  cameras; a pixel still has one bit.
- `light`: with `gamma`, light is the encoded value, as in published datasets. With `linear`, the
  encoded gray or channel is converted to linear light (sRGB), as a real photodiode sees it; the
  spike rate is then that of real light, and `srgb.encode(threshold * rate)` compares with frames.
- `downscale`: on a coarser grid, each pixel then collects the mean light over its area.
- `blur`: the blurred frame is the mean of encoded values over the exposure, as in GoPro's folder
  `blur`, or the encoded mean of linear light, as in `blur_gamma`.
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
"""First row, first column and channel of each pixel of the 2x2 mosaic."""


@dataclass(frozen=True)
class Optics:
    """How light becomes spikes and blurred frames; the defaults match published datasets."""

    color: Literal["gray", "bayer"] = "gray"
    light: Literal["gamma", "linear"] = "gamma"
    blur: Literal["gamma", "linear"] = "gamma"
    downscale: int = 1

    def at_pixels(self, rgb: Float[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n hs ws"]:
        """Return the light that each pixel of the spike camera integrates, in [0, 1]."""
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
        """Average encoded values, or their linear light, over the pixels of the spike camera."""
        return box_reduce(linearise(values) if self.light == "linear" else values, self.downscale)

    def to_blur(self, rgb: Float[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n h w 3"]:
        """Return the values whose mean over the exposure is the blurred frame."""
        return linearise(rgb) if self.blur == "linear" else rgb

    def from_blur(self, mean: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
        """Return the gamma-encoded blurred frame, given the mean of values of `to_blur`."""
        return encode(mean) if self.blur == "linear" else mean


def build_optics(settings: CameraSettings) -> Optics:
    return Optics(settings.color, settings.light, settings.blur, settings.downscale)
