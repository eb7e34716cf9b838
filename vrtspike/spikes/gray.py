"""Gray frames on the pixel grid of the spike camera.

Gray is the BT.601 luma of the gamma-encoded RGB, in the units of the input. On a coarser grid, each
pixel is the mean over its area.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from vrtspike.errors import ConfigError

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B (ITU-R BT.601)."""


def luma(rgb: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n"]:
    """Return the BT.601 luma; the last axis is RGB."""
    return np.asarray(rgb @ LUMA)


def box_reduce(gray: Float[np.ndarray, "n h w"], factor: int) -> Float[np.ndarray, "n hs ws"]:
    """Average squares of `factor` x `factor` pixels.

    Raises ConfigError if the frame is not a multiple of `factor`.
    """
    if factor == 1:
        return gray
    n, height, width = gray.shape
    if height % factor or width % factor:
        raise ConfigError(
            "the frame does not divide into the spike grid",
            got=f"{height}x{width} by camera.downscale {factor}",
            expected=f"multiples of {factor}",
            fix="change the size of the frames or camera.downscale",
        )
    squares = gray.reshape(n, height // factor, factor, width // factor, factor)
    return np.asarray(squares.mean((2, 4)))


def gray_on_grid(
    rgb: UInt8[np.ndarray, "h w 3"], height: int, width: int
) -> Float[np.ndarray, "hs ws"]:
    """Return a frame as gray in [0, 1], resized to any grid by averaging over areas."""
    gray = luma(rgb.astype(np.float32)) / np.float32(255)
    if gray.shape == (height, width):
        return gray
    image = Image.fromarray(gray).resize((width, height), Image.Resampling.BOX)
    return np.asarray(image, np.float32)
