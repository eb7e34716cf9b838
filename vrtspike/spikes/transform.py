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
    """Draw one of the factors, a shift of up to `reach` steps either way, and whether spikes are
    taken away, which happens to the share `dropped`.

    A misregistration is drawn evenly up to `shift` frame pixels down and to the right, `rotate`
    degrees and the share `scale`, both ways; noise and loss from 0 on. These come from a generator
    of their own, so that they leave the other draws, and those that follow, as they are.
    """
    which, steps = rng.integers(len(factors)), rng.integers(-reach, reach + 1)
    gone = bool(dropped and rng.random() < dropped)
    own = rng.spawn(1)[0].random(6)
    down, right, turn, larger = (
        (2 * own[:4] - 1) * np.array([shift, shift, rotate, scale])
    ).tolist()
    return Distortion(
        factors[int(which)],
        int(steps),
        gone,
        Misregistration(down, right, turn, 1.0 + larger),
        float(own[4] * noise),
        float(own[5] * lost),
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
    kept = np.empty_like(spikes)
    # A part at a time: numbers for all of them would take four times the spikes' memory.
    for part, fired in enumerate(spikes):
        kept[part] = fired & (rng.random(fired.shape, np.float32) >= probability)
    return kept


def add_noise(
    spikes: Bool[np.ndarray, "n *more h w"], probability: float, rng: np.random.Generator
) -> Bool[np.ndarray, "n *more h w"]:
    """Let each pixel fire in each step with a probability, independently of the light."""
    if not probability:
        return spikes
    noisy = np.empty_like(spikes)
    for part, fired in enumerate(spikes):
        noisy[part] = fired | (rng.random(fired.shape, np.float32) < probability)
    return noisy
