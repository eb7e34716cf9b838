"""Smooth motion as a function of time: an arc with shake, roll and zoom.

Positions are in pixels, times in steps, angles in radians. A `Path` is at 0 at its middle instant,
so that an object is at its drawn place then. With speed v, initial heading h, turning rate w and
tau = t - middle:

    position = v / w * (sin(h + w tau) - sin h, cos h - cos(h + w tau)) + shake
    shake, roll and log(zoom) = A (sin(f tau + p) - sin p), each with its own A, f and p

An affine map takes frame pixels to the pixels of a layer: `(n, 2, 3)` matrices `[A | b]`, with the
origin in the centre of the frame, x to the right and y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Wave:
    """amplitude * (sin(rate * tau + phase) - sin(phase)): smooth, and 0 at tau = 0."""

    amplitude: float
    rate: float
    phase: float

    def at(self, tau: Array) -> Array:
        """Return the values at times `tau`, in steps from the middle."""
        return np.asarray(
            self.amplitude * (np.sin(self.rate * tau + self.phase) - np.sin(self.phase))
        )


@dataclass(frozen=True)
class Path:
    """A motion in the plane; `scale` multiplies its translation."""

    middle: float
    speed: float
    heading: float
    turn: float
    shake_x: Wave
    shake_y: Wave
    roll_wave: Wave
    zoom_wave: Wave
    scale: float = 1.0

    def position(self, instants: Array) -> Array:
        """Return the translation `(n, 2)` as x, y in pixels."""
        tau = instants - self.middle
        radius, angle = self.speed / self.turn, self.heading + self.turn * tau
        x = radius * (np.sin(angle) - np.sin(self.heading)) + self.shake_x.at(tau)
        y = radius * (np.cos(self.heading) - np.cos(angle)) + self.shake_y.at(tau)
        return self.scale * np.stack([x, y], axis=-1)

    def turning(self, instants: Array) -> Array:
        """Return zoom * rotation, `(n, 2, 2)`."""
        tau = instants - self.middle
        return rotation(self.roll_wave.at(tau)) * np.exp(self.zoom_wave.at(tau))[:, None, None]


def draw_path(rng: np.random.Generator, duration: float, step_length: float) -> Path:
    """Draw a path over `[0, duration)` steps that moves about `step_length` pixels per step.

    It turns by 90 to 270 degrees in total; shake adds up to a quarter of the speed.
    """

    def wave(least: float, greatest: float) -> Wave:
        """Draw a wave of one to three periods, with its greatest slope in this range."""
        rate = rng.uniform(1.0, 3.0) * 2 * np.pi / duration
        return Wave(rng.uniform(least, greatest) / rate, rate, rng.uniform(0, 2 * np.pi))

    turn = rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.5) * np.pi / duration
    shake = 0.25 * step_length
    return Path(
        middle=duration / 2,
        speed=step_length,
        heading=rng.uniform(0, 2 * np.pi),
        turn=turn,
        shake_x=wave(0.0, shake),
        shake_y=wave(0.0, shake),
        roll_wave=wave(0.0, 0.35 / duration),
        zoom_wave=wave(0.0, 0.35 / duration),
    )


def rotation(angle: Array) -> Array:
    """Return rotation matrices `(n, 2, 2)` for angles `(n)`."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def apply_affine(maps: Array, points: Array) -> Array:
    """Map points `(..., 2)` by one affine map `(2, 3)`, or `(n, ..., 2)` by n of them."""
    if maps.ndim == 2:
        return np.asarray(points @ maps[:, :2].T + maps[:, 2])
    shifts = maps[:, :, 2].reshape(len(maps), *(1,) * (points.ndim - 1), 2)
    return np.asarray(np.einsum("nij,...j->n...i", maps[:, :, :2], points) + shifts)


def invert_affine(maps: Array) -> Array:
    """Return the inverses of affine maps `(..., 2, 3)`."""
    inverse = np.linalg.inv(maps[..., :2])
    return np.concatenate([inverse, -inverse @ maps[..., 2:]], axis=-1)


def path_lengths(to_layer: Array, layer_points: Array) -> Array:
    """Return the path lengths of points of a layer in the frame, `(stretches, points)` in pixels.

    `to_layer` `(stretches, n, 2, 3)` holds the maps at the n instants of each stretch of time.
    """
    stretches, n = to_layer.shape[:2]
    maps = invert_affine(to_layer.reshape(-1, 2, 3))
    positions = apply_affine(maps, layer_points).reshape(stretches, n, *layer_points.shape)
    return np.asarray(np.linalg.norm(np.diff(positions, axis=1), axis=-1).sum(axis=1))
