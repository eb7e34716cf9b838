"""The integrate-and-fire spike camera.

    charge += min(intensity, saturation) + dark_rate + noise * N(0, 1)
    where charge >= threshold: fire, charge -= threshold

In: light in [0, 1], one value for each pixel and step (see `vrtspike.spikes.optics`). Out: spikes,
bool. In steady light a pixel fires every threshold / intensity steps on average; each interval is
one of the two whole numbers around that. The initial charge is uniform in [0, threshold), as if the
camera were already running.

Three effects limit the rate. A pixel fires at most once per step, so light beyond one threshold per
step is lost. After a spike, a pixel neither integrates nor fires for `refractory_steps`. A
photodiode gives at most `saturation`. In steady light without noise, this gives

    rate = 1 / (max(threshold / min(intensity, saturation), 1) + refractory_steps)

In the dark, noise makes the charge a random walk that is never below 0, so that a dark pixel fires
at random, about (noise / threshold)^2 times per step. `dark_rate` adds a steady current, which
fires regularly. Hot pixels fire at every step and dead pixels never; their positions are drawn once
for each camera.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float

from vrtspike.config.camera import CameraSettings
from vrtspike.errors import ConfigError

Awake = Bool[np.ndarray, "*pixels"] | np.bool_


class SpikeCamera:
    """A spike camera. It keeps its charge, so exposing in parts gives the same as exposing at once.

    `shape` is (height, width), or another shape of independent pixels, such as (height, width, 3)
    for one camera per colour. Values out of range raise ConfigError.
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
            # A separate generator, so that the charge and noise of the other pixels do not change.
            draw = rng.spawn(1)[0].random(shape)
            self.hot, self.dead = draw < hot_pixels, draw >= 1.0 - dead_pixels
        self._scratch = np.empty(shape, np.float32)

    def expose(self, light: Float[np.ndarray, "*light"]) -> Bool[np.ndarray, "*light"]:
        """Integrate the light of consecutive steps `(s, *shape)`, and return the spikes."""
        spikes = np.empty(light.shape, np.bool_)
        for step_light, fired in zip(light, spikes, strict=True):
            awake = self.resting == 0 if self.refractory_steps else np.True_
            self._integrate(step_light, awake)
            self._fire(fired, awake)
        if self.hot is not None and self.dead is not None:
            spikes |= self.hot
            spikes &= ~self.dead
        return spikes

    def _integrate(self, light: Float[np.ndarray, "*pixels"], awake: Awake) -> None:
        """Add one step of light, dark current and noise to the charge of pixels that are awake."""
        charge, scratch = self.charge, self._scratch
        if self.saturation is not None:
            light = np.minimum(light, self.saturation)
        charge += light if awake is np.True_ else light * awake
        if self.dark_rate:
            charge += self.dark_rate * awake
        if self.noise:
            self.rng.standard_normal(dtype=np.float32, out=scratch)
            scratch *= self.noise * awake
            charge += scratch
            np.maximum(charge, 0.0, out=charge)

    def _fire(self, fired: Bool[np.ndarray, "*pixels"], awake: Awake) -> None:
        """Write to `fired` which pixels reach the threshold, and subtract it from their charge."""
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
    """Return the spikes of a camera that is exposed to this light, step by step.

    `light` is in [0, 1]; 1 is the brightest value of the frame camera. `camera` takes further
    arguments of `SpikeCamera`, such as `noise=0.02`. Light of another shape or range raises
    ConfigError.
    """
    values = np.asarray(light, np.float32)
    if values.ndim != 3 or not values.size:
        raise ConfigError("light of another shape", got=values.shape, expected="(steps, h, w)")
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise ConfigError(
            "light out of range",
            got=f"{low:.4g} to {high:.4g}",
            expected="0 to 1",
            fix="divide 8-bit gray levels by 255",
        )
    rng = np.random.default_rng(seed)
    return SpikeCamera(*values.shape[1:], threshold=threshold, rng=rng, **camera).expose(values)  # type: ignore[arg-type]


def build_camera(
    settings: CameraSettings, height: int, width: int, rng: np.random.Generator
) -> SpikeCamera:
    """Build the spike camera for frames of this size in pixels.

    The spike camera has `settings.downscale` times fewer pixels along each side.
    """
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
    """Raise ConfigError if the value is not in [low, high], or in (low, high] with `above`."""
    if not (math.isfinite(value) and low <= value <= high) or (above and value == low):
        limits = f"{'more than' if above else 'at least'} {low:g}"
        raise ConfigError(
            f"a spike camera cannot have this {name}",
            got=value,
            expected=limits + (f", at most {high:g}" if high < math.inf else ""),
        )
