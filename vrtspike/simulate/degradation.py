"""Degrade a pair of frames to the kinds of images that the flow network gets as input.

In: the light of both frames of a pair, float32 RGB `(2, h, w, 3)` in [0, 1], at their instants and
as means over exposures around the instants. Out: images, uint8 `(2, 3, h, w)`, of one kind:

- `sharp`: the light at the instant.
- `guess`: imitates the first guess of a model, which is nearly sharp. Up to `MOST_RESIDUAL` of the
  blur remains; it is smoothed by a Gaussian of `SMOOTHING` pixels, and has noise of standard
  deviation `NOISE`.
- `spikes`: the mean of the spikes in a short window (TFP), smoothed by a Gaussian of one pixel, in
  all three channels. An integrate-and-fire camera with threshold c that is exposed to luma l for n
  steps fires floor(n l / c + u) times, where u in [0, 1) is its charge at the start, over c.
- `blurred`: the mean over an exposure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import cv2
import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt8

from vrtspike.simulate.blur import to_uint8
from vrtspike.spikes.gray import luma

Kind = Literal["sharp", "guess", "spikes", "blurred"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SHARES = (0.15, 0.45, 0.25, 0.15)
"""Probability of each kind in training."""
Light = Float[np.ndarray, "two h w 3"]
Mean = Callable[[float], Light]
"""Takes the length of an exposure as a fraction of the frame interval, and returns the mean light
over such an exposure around each instant; for 0, the light at the instants."""
Images = UInt8[np.ndarray, "two 3 h w"]

LEAST_EXPOSURE = 0.25
"""Shortest exposure of a blurred frame, as a fraction of the longest."""
MOST_RESIDUAL = 0.3
SMOOTHING = (0.3, 1.0)
NOISE = (0.01, 0.03)
WINDOW, INTERVAL = 17, 64
"""A spike image is the mean of `WINDOW` steps; a frame interval has `INTERVAL` steps."""
THRESHOLD = (1.0, 4.0)
SPIKE_SMOOTHING = 1.0


def draw_kind(rng: np.random.Generator) -> Kind:
    """Draw the kind of images of a training pair."""
    return KINDS[int(rng.choice(len(KINDS), p=SHARES))]


def degraded(kind: Kind, mean: Mean, longest: float, rng: np.random.Generator) -> Images:
    """Return the images of a pair; `longest` is the longest exposure, in the unit of `mean`."""
    exposure = longest * float(rng.uniform(LEAST_EXPOSURE, 1.0))
    match kind:
        case "sharp":
            light = mean(0.0)
        case "blurred":
            light = mean(exposure)
        case "guess":
            residual = np.float32(rng.uniform(0.0, MOST_RESIDUAL))
            light = (1 - residual) * mean(0.0) + residual * mean(exposure)
            light = _smoothed(light, float(rng.uniform(*SMOOTHING)))
            noise = rng.standard_normal(light.shape, np.float32)
            light = light + np.float32(rng.uniform(*NOISE)) * noise
        case "spikes":
            gray = luma(mean(WINDOW / INTERVAL))
            image = spike_image(gray, WINDOW, float(rng.uniform(*THRESHOLD)), rng)
            light = _smoothed(np.repeat(image[..., None], 3, axis=-1), SPIKE_SMOOTHING)
    return rearrange(to_uint8(light), "two h w c -> two c h w")


def spike_image(
    gray: Float[np.ndarray, "*n h w"], steps: int, threshold: float, rng: np.random.Generator
) -> Float[np.ndarray, "*n h w"]:
    """Return the mean over `steps` of the spikes for constant light, times the threshold."""
    counts = np.floor(gray * (steps / threshold) + rng.random(gray.shape, np.float32))
    return np.asarray(np.minimum(counts, steps) * (threshold / steps), np.float32)


def _smoothed(light: Light, sigma: float) -> Light:
    return np.stack([np.asarray(cv2.GaussianBlur(frame, (0, 0), sigma)) for frame in light])
