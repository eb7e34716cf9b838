"""Frames as the flow network meets them: sharp ones, a model's first guess, spike images, blur.

In: the light of both frames of a pair, float32 RGB `(2, h, w, 3)` in [0, 1]: at their instants, and
its means over exposures around these. Out: what is seen of it, uint8 `(2, 3, h, w)`.

- `sharp`: the light of the instant.
- `guess`: a restored frame that is nearly sharp. Up to `MOST_RESIDUAL` of the blur is left, it is
  smoothed by a Gaussian of `SMOOTHING` pixels, and has noise of `NOISE`.
- `spikes`: the mean of the spikes of a short window (TFP), smoothed by a Gaussian of one pixel, in
  all three channels. An integrate-and-fire camera of threshold c that sees the luma l for n steps
  fires floor(n l / c + u) times, u in [0, 1) being its charge when the window begins.
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
"""How often each kind is drawn in training."""
Light = Float[np.ndarray, "two h w 3"]
Mean = Callable[[float], Light]
"""Returns the mean light over an exposure, as a share of the frame interval, around each instant;
0: at the instants."""
Seen = UInt8[np.ndarray, "two 3 h w"]

LEAST_EXPOSURE = 0.25
"""Shortest exposure of a blurred frame, as a share of the longest."""
MOST_RESIDUAL = 0.3
SMOOTHING = (0.3, 1.0)
NOISE = (0.01, 0.03)
WINDOW, INTERVAL = 17, 64
"""Steps of a spike image, of so many in a frame interval."""
THRESHOLD = (1.0, 4.0)
SPIKE_SMOOTHING = 1.0


def draw_kind(rng: np.random.Generator) -> Kind:
    """Draw what is seen of a pair in training."""
    return KINDS[int(rng.choice(len(KINDS), p=SHARES))]


def degraded(kind: Kind, mean: Mean, longest: float, rng: np.random.Generator) -> Seen:
    """Return what is seen of a pair; `longest` is the longest exposure, as `mean` takes it."""
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
    """Return the mean of a spike camera's steps, times its threshold, for light that stays."""
    counts = np.floor(gray * (steps / threshold) + rng.random(gray.shape, np.float32))
    return np.asarray(np.minimum(counts, steps) * (threshold / steps), np.float32)


def _smoothed(light: Light, sigma: float) -> Light:
    return np.stack([np.asarray(cv2.GaussianBlur(frame, (0, 0), sigma)) for frame in light])
