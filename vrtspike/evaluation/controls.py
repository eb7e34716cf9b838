"""The controls: images without a trained network, which a model has to beat.

In: one blurred frame, uint8 `(h, w, 3)`, and its spikes `(s, hs, ws)`. Out: uint8 RGB images on the
grid of the frame; spike images are gray and resized bilinearly.

    blurred   the input itself
    tfp       threshold * mean of the spikes in a window centred on the target instant
    tfi       threshold / length of the spike interval around the target instant
    sdm       blurred * TFP(short window) / TFP(exposure): the spike/blur ratio without training
              (Chen et al., "Spike-guided motion deblurring ... S-SDM", NeurIPS 2024); one spike is
              added to both means, so that pixels that hardly fire keep the blurred value
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray

from vrtspike.spikes.reconstruct import tfi, tfp
from vrtspike.spikes.srgb import encode

Image = UInt8[np.ndarray, "h w 3"]


def controls(
    blurred: Image,
    spikes: Bool[np.ndarray, "s hs ws"],
    *,
    threshold: float,
    exposure: tuple[int, int],
    target_step: int,
    tfp_steps: int,
    sdm_steps: int,
    light: Literal["gamma", "linear"] = "gamma",
) -> dict[str, Image]:
    """Return the image of every control for one frame, by name.

    `exposure` and `target_step` are steps of `spikes`; `tfp_steps` and `sdm_steps` are the lengths
    of the windows. `light`: what the camera integrates; for `linear`, spike images are
    gamma-encoded so that they compare with frames.
    """
    size = blurred.shape[:2]
    average = tfp(spikes, threshold=threshold, center=target_step, window=tfp_steps)
    interval = tfi(spikes, step=target_step, threshold=threshold)
    ratio = _sharpening_ratio(spikes, threshold, exposure, target_step, sdm_steps)
    if light == "linear":
        average, interval = encode(average.clip(0, 1)), encode(interval.clip(0, 1))
    return {
        "blurred": blurred,
        "tfp": _gray_image(average, size),
        "tfi": _gray_image(interval, size),
        "sdm": _round(blurred * _resize(ratio, size)[..., None] / 255),
    }


def _sharpening_ratio(
    spikes: NDArray[np.bool_],
    threshold: float,
    exposure: tuple[int, int],
    target_step: int,
    steps: int,
) -> Float[np.ndarray, "hs ws"]:
    """Return the brightness of each pixel at the target instant / that over the exposure."""
    start, stop = exposure
    one_spike = np.float32(threshold / (stop - start))
    short = tfp(spikes, threshold=threshold, center=target_step, window=steps)
    whole = tfp(spikes[start:stop], threshold=threshold)
    return (short + one_spike) / (whole + one_spike)


def _gray_image(intensity: NDArray[np.float32], size: tuple[int, int]) -> Image:
    """Turn an intensity on the spike grid into a gray RGB image on the frame's grid."""
    return np.asarray(repeat(_round(_resize(intensity, size)), "h w -> h w c", c=3))


def _resize(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize an image on the spike grid to the frame's grid."""
    if image.shape == size:
        return image
    planes = torch.from_numpy(image)[None, None]
    resized = F.interpolate(planes, size, mode="bilinear", align_corners=False, antialias=True)
    return np.asarray(resized[0, 0].numpy())


def _round(intensity: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Clip intensities to [0, 1] and round them to 8 bits."""
    return (intensity.clip(0, 1) * 255).round().astype(np.uint8)
