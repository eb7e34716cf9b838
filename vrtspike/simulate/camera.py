"""The integrate-and-fire spike camera.

    charge += min(intensity, saturation) + dark_rate + noise * N(0, 1)
    where charge >= threshold: fire, charge -= threshold

In: light at spike rate, one value a pixel and step, in [0, 1] (see `vrtspike.spikes.optics`).
Out: spikes, bool. In steady light a pixel fires every threshold / intensity steps on average, and
the intervals are the two whole numbers around that. The charge starts uniform in [0, threshold), as
in a camera that has run before.

What is lost: a pixel fires at most once a step, so light beyond one threshold a step is not
counted; after a spike a pixel rests for `refractory_steps`, in which it neither integrates nor
fires; a photodiode gives no more than `saturation`. Together, in steady light without noise,

    rate = 1 / (max(threshold / min(intensity, saturation), 1) + refractory_steps)

Dark noise: noise walks the charge up and down, never below 0, so that a dark pixel fires at random,
about (noise / threshold)^2 times a step; `dark_rate` adds a steady current, which is regular. Hot
pixels fire at every step and dead ones never; they stay where the first draw put them.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float

from vrtspike.config.camera import CameraSettings
from vrtspike.errors import ConfigError

Awake = Bool[np.ndarray, "*pixels"] | np.bool_


class SpikeCamera:
    """A spike camera with its charge: exposing in pieces equals exposing at once.

    `shape` is that of the pixels: (height, width), or any other, such as (height, width, 3) for
    channels that are exposed separately. Values out of range raise ConfigError.
    """

    def __init__(
        self,
        *shape: int,
        threshold: float,
        noise: float = 0.0,
        dark_rate: float = 0.0,
        refractory_steps: int = 0,
        saturation: float | None = None,
        hot_pixels: float = 0.0,
        dead_pixels: float = 0.0,
        rng: np.random.Generator,
    ) -> None:
        _check("shape", min(shape, default=0), 1, math.inf)
        _check("threshold", threshold, 0, math.inf, above=True)
        _check("noise", noise, 0, math.inf)
        _check("dark_rate", dark_rate, 0, math.inf)
        _check("refractory_steps", refractory_steps, 0, 1 << 30)
        _check("saturation", 1 if saturation is None else saturation, 0, math.inf, above=True)
        _check("hot_pixels", hot_pixels, 0, 1)
        _check("hot_pixels + dead_pixels", hot_pixels + dead_pixels, hot_pixels, 1)
        self.threshold = np.float32(threshold)
        self.noise = np.float32(noise)
        self.dark_rate = np.float32(dark_rate)
        self.refractory_steps = refractory_steps
        self.saturation = None if saturation is None else np.float32(saturation)
        self.rng = rng
        self.charge = rng.random(shape, np.float32) * self.threshold
        self.resting = np.zeros(shape, np.int32)
        self.hot = self.dead = None
        if hot_pixels or dead_pixels:
            # A generator of its own: the charge and noise of the other pixels stay as they were.
            draw = rng.spawn(1)[0].random(shape)
            self.hot, self.dead = draw < hot_pixels, draw >= 1.0 - dead_pixels
        self._scratch = np.empty(shape, np.float32)

    def expose(self, light: Float[np.ndarray, "*light"]) -> Bool[np.ndarray, "*light"]:
        """Integrate the light of consecutive steps `(s, *shape)`; return where the camera fired."""
        spikes = np.empty(light.shape, np.bool_)
        for seen, fired in zip(light, spikes, strict=True):
            awake = self.resting == 0 if self.refractory_steps else np.True_
            self._integrate(seen, awake)
            self._fire(fired, awake)
        if self.hot is not None and self.dead is not None:
            spikes |= self.hot
            spikes &= ~self.dead
        return spikes

    def _integrate(self, seen: Float[np.ndarray, "*pixels"], awake: Awake) -> None:
        """Add one step of light, dark current and noise to the charge of the pixels awake."""
        charge, scratch = self.charge, self._scratch
        if self.saturation is not None:
            seen = np.minimum(seen, self.saturation)
        charge += seen if awake is np.True_ else seen * awake
        if self.dark_rate:
            charge += self.dark_rate * awake
        if self.noise:
            self.rng.standard_normal(dtype=np.float32, out=scratch)
            scratch *= self.noise * awake
            charge += scratch
            np.maximum(charge, 0.0, out=charge)

    def _fire(self, fired: Bool[np.ndarray, "*pixels"], awake: Awake) -> None:
        """Write where the charge has reached the threshold, and take the threshold off there."""
        charge, scratch = self.charge, self._scratch
        np.greater_equal(charge, self.threshold, out=fired)
        if self.refractory_steps:
            fired &= awake
            self.resting -= ~awake
            self.resting += fired * np.int32(self.refractory_steps)
        np.multiply(fired, self.threshold, out=scratch)
        charge -= scratch
        np.minimum(charge, self.threshold, out=charge)


def simulate_camera(
    light: Float[np.ndarray, "s h w"], *, threshold: float = 2.0, seed: int = 0, **camera: float
) -> Bool[np.ndarray, "s h w"]:
    """Return the spikes of a camera that sees this light, one step after the other.

    `light` is in [0, 1], 1 for the brightest that the frame camera shows; `camera` are arguments of
    `SpikeCamera`, such as `noise=0.02`. Light of another shape or range raises ConfigError.
    """
    seen = np.asarray(light, np.float32)
    if seen.ndim != 3 or not seen.size:
        raise ConfigError("light of another shape", got=seen.shape, expected="(steps, h, w)")
    low, high = float(seen.min()), float(seen.max())
    if not (low >= 0 and high <= 1):
        raise ConfigError(
            "light out of range",
            got=f"{low:.4g} to {high:.4g}",
            expected="0 to 1",
            fix="divide 8-bit gray levels by 255",
        )
    rng = np.random.default_rng(seed)
    return SpikeCamera(*seen.shape[1:], threshold=threshold, rng=rng, **camera).expose(seen)  # type: ignore[arg-type]


def build_camera(
    settings: CameraSettings, height: int, width: int, rng: np.random.Generator
) -> SpikeCamera:
    """Build the camera of frames of this size; its grid is `settings.downscale` times coarser."""
    return SpikeCamera(
        height // settings.downscale,
        width // settings.downscale,
        threshold=settings.threshold,
        noise=settings.noise,
        dark_rate=settings.dark_rate,
        refractory_steps=settings.refractory_steps,
        saturation=settings.saturation,
        hot_pixels=settings.hot_pixels,
        dead_pixels=settings.dead_pixels,
        rng=rng,
    )


def _check(name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    """Refuse a value that is not a finite number in [low, high], or not above `low`."""
    if not (math.isfinite(value) and low <= value <= high) or (above and value == low):
        limits = f"{'more than' if above else 'at least'} {low:g}"
        raise ConfigError(
            f"a spike camera cannot have this {name}",
            got=value,
            expected=limits + (f", at most {high:g}" if high < math.inf else ""),
        )
