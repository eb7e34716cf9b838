"""Spikes as another camera would have given them: a higher threshold, a clock that is off.

A model that saw one threshold and one alignment alone fails at others. Both changes are drawn for
each sample, and neither changes what is right: voxels in mode `rate` are scaled by the threshold.

- A camera of n times the threshold fires at every n-th spike of a pixel. Where it begins to count
  is drawn for each pixel and frame, as its charge at that time would be.
- A shift moves the window that is voxelized by some steps against the frames, as far as the steps
  of the frame reach.
- A camera that is off gives no spike at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from vrtspike.data.alignment import Timeline


@dataclass(frozen=True)
class Distortion:
    """What was drawn for a sample."""

    threshold_factor: int = 1
    shift: int = 0
    """Steps by which the window lies later than the exposure."""
    dropped: bool = False
    """Whether all spikes are taken away."""

    def window(self, timeline: Timeline) -> slice:
        """Return the steps that stand for the exposure."""
        start, stop = timeline.exposure
        return slice(start + self.shift, stop + self.shift)


def draw_distortion(
    rng: np.random.Generator,
    timeline: Timeline,
    factors: Sequence[int],
    reach: int,
    dropped: float = 0.0,
) -> Distortion:
    """Draw one of the factors, a shift of up to `reach` steps that stays in the frame, and whether
    spikes are taken away, which happens to the share `dropped`."""
    start, stop = timeline.exposure
    least, most = max(-reach, -start), min(reach, timeline.steps_per_frame - stop)
    which, shift = rng.integers(len(factors)), rng.integers(least, most + 1)
    gone = bool(dropped and rng.random() < dropped)
    return Distortion(factors[int(which)], int(shift), gone)


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
