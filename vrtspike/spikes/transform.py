"""Augment spikes as if another rig had recorded them: other threshold, time, registration, noise.

A model trained on one camera and one alignment fails on others. The augmentation is drawn for each
sample. The sharp target stays the same, since voxels in mode `rate` are scaled by the threshold.

- Threshold: a camera with n times the threshold fires at every n-th spike of a pixel. The first one
  is drawn for each pixel and frame, like the charge of the pixel at that time.
- Shift: the spikes are moved by some steps relative to the frames.
- `Misregistration`: the spikes are moved, turned and scaled relative to the frames, around the
  middle of the crop, by the nearest pixel of the spike grid. All steps and frames of a sample share
  one map. Spikes around the crop are read too; at the edge of the frame, the edge is repeated.
- Loss and noise: spikes are lost, and pixels fire at random, independently of everything else.
- Dropped: the camera is off and gives no spikes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

Part = tuple[slice, slice]
"""A rectangle of a spike grid: its rows and its columns."""


@dataclass(frozen=True)
class Misregistration:
    """How the picture of the spikes is moved, turned and scaled relative to the frames."""

    down: float = 0.0
    """Shift down, in frame pixels."""
    right: float = 0.0
    """Shift to the right, in frame pixels."""
    turn: float = 0.0
    """Clockwise rotation around the middle of the crop, in degrees."""
    scale: float = 1.0
    """Magnification; 1 is the true size."""

    def reading(self, crop: Part, shape: tuple[int, int], grid: int) -> Part:
        """Return the rows and columns of the spike grid to read for a crop.

        `shape`: size of the spike grid. `grid`: how many times coarser it is than the frame.
        """
        seen = self._seen(crop, grid)
        rows, columns = (
            slice(
                int(np.clip(places.min(), 0, length - 1)),
                int(np.clip(places.max(), 0, length - 1)) + 1,
            )
            for places, length in zip(seen, shape, strict=True)
        )
        return rows, columns

    def apply(
        self, spikes: Bool[np.ndarray, "*time h w"], read: Part, crop: Part, grid: int
    ) -> Bool[np.ndarray, "*time m n"]:
        """Return the misregistered spikes of a crop.

        `spikes` are those of the part `read`, which `reading` returned for the crop.
        """
        if self == Misregistration():
            return spikes
        rows, columns = (
            np.clip(places, part.start, part.stop - 1) - part.start
            for places, part in zip(self._seen(crop, grid), read, strict=True)
        )
        height, width = spikes.shape[-2:]
        # One flat index for each pixel; indexing with two is several times slower.
        flat = spikes.reshape(*spikes.shape[:-2], height * width)
        moved: Bool[np.ndarray, "*time m n"] = np.take(flat, rows * width + columns, axis=-1)
        return moved

    def _seen(self, crop: Part, grid: int) -> tuple[Int[np.ndarray, "m n"], Int[np.ndarray, "m n"]]:
        """Return the row and column of the spike grid that each pixel of a crop shows.

        The pixel at p shows m + R(-turn) (p - m - shift) / scale; m is the middle of the crop.
        """
        rows, columns = crop
        middle = ((rows.start + rows.stop - 1) / 2, (columns.start + columns.stop - 1) / 2)
        y = (np.arange(rows.start, rows.stop) - middle[0] - self.down / grid)[:, None]
        x = np.arange(columns.start, columns.stop) - middle[1] - self.right / grid
        angle = np.deg2rad(self.turn)
        cos, sin = np.cos(angle) / self.scale, np.sin(angle) / self.scale
        return (
            np.floor(middle[0] + cos * y - sin * x + 0.5).astype(np.intp),
            np.floor(middle[1] + sin * y + cos * x + 0.5).astype(np.intp),
        )


REGISTERED = Misregistration()


@dataclass(frozen=True)
class Distortion:
    """The augmentation of one sample."""

    threshold_factor: int = 1
    shift: int = 0
    """Steps by which exposure and target are moved later in the stream."""
    dropped: bool = False
    """Whether all spikes are removed."""
    place: Misregistration = REGISTERED
    noise: float = 0.0
    """Probability that a pixel fires at random in a step."""
    lost: float = 0.0
    """Probability that a spike is lost."""

    def apply(
        self, spikes: Bool[np.ndarray, "t s h w"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "t s h w"]:
        """Apply threshold, loss and noise; the caller has applied `shift` and `place`."""
        spikes = raise_threshold(spikes, self.threshold_factor, rng)
        if self.dropped:
            return np.zeros_like(spikes)
        return add_noise(lose_spikes(spikes, self.lost, rng), self.noise, rng)


def draw_distortion(
    rng: np.random.Generator,
    factors: Sequence[int],
    reach: int,
    dropped: float = 0.0,
    *,
    shift: float = 0.0,
    rotate: float = 0.0,
    scale: float = 0.0,
    noise: float = 0.0,
    lost: float = 0.0,
) -> Distortion:
    """Draw the augmentation of a sample.

    `factors`: the threshold factors to choose from. `dropped`: probability that all spikes are
    removed. The other arguments are limits: `reach` (steps of shift in time), `shift` (frame pixels
    down and to the right), `rotate` (degrees) and `scale` (a fraction) in both directions; `noise`
    and `lost` (probabilities) from 0.

    Each value is its limit times the cube of a uniform draw, so half of the values are below an
    eighth of the limit. With uniform values, the model would see hardly any rig that is good in all
    respects, and would learn to distrust all spikes.

    Misregistration, noise and loss come from a child generator, so that they do not change other
    draws of `rng`.
    """
    which, steps = rng.integers(len(factors)), round(reach * (2 * rng.random() - 1) ** 3)
    is_dropped = bool(dropped and rng.random() < dropped)
    draws = rng.spawn(1)[0].random(6)
    down, right, turn, larger = (
        (2 * draws[:4] - 1) ** 3 * np.array([shift, shift, rotate, scale])
    ).tolist()
    return Distortion(
        factors[int(which)],
        steps,
        is_dropped,
        Misregistration(down, right, turn, 1.0 + larger),
        float(draws[4] ** 3 * noise),
        float(draws[5] ** 3 * lost),
    )


def raise_threshold(
    spikes: Bool[np.ndarray, "t s h w"], factor: int, rng: np.random.Generator
) -> Bool[np.ndarray, "t s h w"]:
    """Keep every `factor`-th spike of each pixel of each frame; the first one is random."""
    if factor == 1:
        return spikes
    frames, _, height, width = spikes.shape
    count = rng.integers(0, factor, (frames, height, width), np.uint8)
    kept = np.empty_like(spikes)
    for step in range(spikes.shape[1]):
        fired = spikes[:, step]
        count += fired
        kept[:, step] = fired & (count == factor)
        count[count == factor] = 0
    return kept


def lose_spikes(
    spikes: Bool[np.ndarray, "n *more h w"], probability: float, rng: np.random.Generator
) -> Bool[np.ndarray, "n *more h w"]:
    """Remove each spike independently with a probability."""
    return _overwritten(spikes, False, probability, rng)


def add_noise(
    spikes: Bool[np.ndarray, "n *more h w"], probability: float, rng: np.random.Generator
) -> Bool[np.ndarray, "n *more h w"]:
    """Let each pixel fire at random in each step with a probability."""
    return _overwritten(spikes, True, probability, rng)


def _overwritten(
    spikes: Bool[np.ndarray, "n *more h w"],
    value: bool,
    probability: float,
    rng: np.random.Generator,
) -> Bool[np.ndarray, "n *more h w"]:
    """Set each element to a value, independently with a probability.

    A Poisson number of uniform draws hits each element independently. For small probabilities this
    needs far fewer draws than one for each element.
    """
    if not probability:
        return spikes
    count = spikes.size
    if probability > 0.5:
        hits = np.flatnonzero(rng.random(count, np.float32) < probability)
    else:
        hits = rng.integers(count, size=int(rng.poisson(-count * math.log1p(-probability))))
    changed = spikes.copy()
    changed.reshape(-1)[hits] = value
    return changed
