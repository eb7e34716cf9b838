"""The integrate-and-fire spike camera.

    charge += intensity + dark_rate + noise;  where charge >= threshold: fire, charge -= threshold

In: light at spike rate, gray in [0, 1], gamma-encoded as published datasets use it (BT.601 luma of
the encoded RGB; not linearised). Out: spikes, bool. The firing rate is intensity / threshold. The
charge starts uniform in [0, threshold), as in a camera that has run before, stays at or above 0 and
below two thresholds: a pixel fires at most once a step, and light beyond that is lost.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


class SpikeCamera:
    """A spike camera with its charge: exposing in pieces equals exposing at once."""

    def __init__(
        self,
        height: int,
        width: int,
        *,
        threshold: float,
        noise: float = 0.0,
        dark_rate: float = 0.0,
        rng: np.random.Generator,
    ) -> None:
        self.threshold = np.float32(threshold)
        self.noise = np.float32(noise)
        self.dark_rate = np.float32(dark_rate)
        self.rng = rng
        self.charge = rng.random((height, width), np.float32) * self.threshold

    def expose(self, gray: Float[np.ndarray, "s h w"]) -> Bool[np.ndarray, "s h w"]:
        """Integrate the light of consecutive steps and return where the camera fired."""
        spikes = np.empty(gray.shape, np.bool_)
        charge = self.charge
        for light, fired in zip(gray, spikes, strict=True):
            charge += light
            if self.dark_rate:
                charge += self.dark_rate
            if self.noise:
                charge += self.noise * self.rng.standard_normal(charge.shape, np.float32)
                np.maximum(charge, 0.0, out=charge)
            np.greater_equal(charge, self.threshold, out=fired)
            charge -= fired * self.threshold
            np.minimum(charge, self.threshold, out=charge)
        return spikes
