"""Spikes as another rig would have given them: another threshold, a clock or a place that is off.

A model that saw one camera and one alignment alone fails at others. What changes is drawn for each
sample, and none of it changes what is right: voxels in mode `rate` are scaled by the threshold.

- A camera of n times the threshold fires at every n-th spike of a pixel. Where it begins to count
  is drawn for each pixel and frame, as its charge at that time would be.
- A shift in time moves what is seen of the spikes by some steps against the frames.
- A camera that is not registered to the frames (`Misregistration`) shows another place: one map for
  all steps and frames of a sample, by the nearest pixel of the spike grid, around the middle of the
  crop. What lies around the crop is read, too; the frame's edge is repeated.
- Spikes are lost, and pixels fire on their own, independently of all else.
- A camera that is off gives no spike at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

Part = tuple[slice, slice]
"""Rows and columns of a spike grid."""


@dataclass(frozen=True)
class Misregistration:
    """How the spikes' picture lies on that of the frames: moved, turned and scaled a little."""

    down: float = 0.0
    """Frame pixels by which it lies too low."""
    right: float = 0.0
    """Frame pixels by which it lies too far to the right."""
    turn: float = 0.0
    """Degrees by which it is turned clockwise around the middle of the crop."""
    scale: float = 1.0
    """How many times too large it is."""

    def reading(self, crop: Part, shape: tuple[int, int], grid: int) -> Part:
        """Return the part of a spike grid of a `shape` that is seen in place of a crop of it.

        The grid is `grid` times coarser than the frame's.
        """
        found = self._seen(crop, grid)
        rows, columns = (
            slice(
                int(np.clip(places.min(), 0, length - 1)),
                int(np.clip(places.max(), 0, length - 1)) + 1,
            )
            for places, length in zip(found, shape, strict=True)
        )
        return rows, columns

    def apply(
        self, spikes: Bool[np.ndarray, "*time h w"], read: Part, crop: Part, grid: int
    ) -> Bool[np.ndarray, "*time m n"]:
        """Return the spikes of a crop from those that were read of its `reading`."""
        if self == Misregistration():
            return spikes
        rows, columns = (
            np.clip(places, part.start, part.stop - 1) - part.start
            for places, part in zip(self._seen(crop, grid), read, strict=True)
        )
        height, width = spikes.shape[-2:]
        # One flat index a pixel: two of them take several times as long.
        flat = spikes.reshape(*spikes.shape[:-2], height * width)
        moved: Bool[np.ndarray, "*time m n"] = np.take(flat, rows * width + columns, axis=-1)
        return moved

    def _seen(self, crop: Part, grid: int) -> tuple[Int[np.ndarray, "m n"], Int[np.ndarray, "m n"]]:
        """Return the rows and columns of the grid that the pixels of a crop show.

        With m the middle of the crop, the pixel at p shows m + R(-turn) (p - m - shift) / scale.
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
    """What was drawn for a sample."""

    threshold_factor: int = 1
    shift: int = 0
    """Steps by which exposure and target lie later in the stream than the frames say."""
    dropped: bool = False
    """Whether all spikes are taken away."""
    place: Misregistration = REGISTERED
    """Where the spikes' picture lies."""
    noise: float = 0.0
    """Probability that a pixel fires in a step on its own."""
    lost: float = 0.0
    """Probability that a spike is lost."""

    def apply(
        self, spikes: Bool[np.ndarray, "t s h w"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "t s h w"]:
        """Change spikes that are those of the right place and steps."""
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
    """Draw a threshold factor, a shift in time, whether all spikes are taken away, and the rest.

    Limits: `reach` steps, `shift` frame pixels down and to the right, `rotate` degrees and the
    share `scale` either way; `noise` and `lost` from 0. Each draw is its limit times the cube of an
    even draw: half of them are below an eighth of the limit. Drawn evenly, the model would see
    hardly any rig that is good in all respects, and would learn to distrust all spikes. `dropped`
    is the share of the samples without spikes.

    Misregistration, noise and loss come from a generator of their own, so they leave the other
    draws, and those that follow, as they are.
    """
    which, steps = rng.integers(len(factors)), round(reach * (2 * rng.random() - 1) ** 3)
    gone = bool(dropped and rng.random() < dropped)
    own = rng.spawn(1)[0].random(6)
    down, right, turn, larger = (
        (2 * own[:4] - 1) ** 3 * np.array([shift, shift, rotate, scale])
    ).tolist()
    return Distortion(
        factors[int(which)],
        steps,
        gone,
        Misregistration(down, right, turn, 1.0 + larger),
        float(own[4] ** 3 * noise),
        float(own[5] ** 3 * lost),
    )


def raise_threshold(
    spikes: Bool[np.ndarray, "t s h w"], factor: int, rng: np.random.Generator
) -> Bool[np.ndarray, "t s h w"]:
    """Keep every `factor`-th spike of each pixel of each frame, counted from a random one on."""
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
    """Lose each spike with a probability, independently."""
    if not probability:
        return spikes
    kept = spikes.copy()
    kept.reshape(-1)[_places(kept.size, probability, rng)] = False
    return kept


def add_noise(
    spikes: Bool[np.ndarray, "n *more h w"], probability: float, rng: np.random.Generator
) -> Bool[np.ndarray, "n *more h w"]:
    """Let each pixel fire in each step with a probability, independently of the light."""
    if not probability:
        return spikes
    noisy = spikes.copy()
    noisy.reshape(-1)[_places(noisy.size, probability, rng)] = True
    return noisy


def _places(count: int, probability: float, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """Draw places among `count`, each with the same probability and independently; some twice.

    A Poisson number of throws at random places hits each of them independently; where few are hit
    this takes far fewer draws than one for every place.
    """
    if probability > 0.5:
        return np.flatnonzero(rng.random(count, np.float32) < probability)
    throws = int(rng.poisson(-count * math.log1p(-probability)))
    return np.asarray(rng.integers(count, size=throws))
