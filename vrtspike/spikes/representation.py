"""The spike input of a model: the only function from spikes to what a model sees.

Training, validation, restoration and evaluation all call `SpikeRepresentation`. In: spikes
`(t, s, h, w)`, the steps of consecutive frames; the timeline, which places exposure and target
instant in a frame's steps; the camera's threshold. Out: float16 `(t, c, h, w)`, intensities in
units of full brightness, in these channels:

    bins      threshold * mean of the spikes in each of k equal parts of the exposure, or of a
              window of the same length centred on the target instant
    windows   threshold * mean over a window centred on the target instant (TFP)
    exposure  threshold * mean over the exposure: the blurred frame as the spikes see it
    interval  threshold / length of the spike interval at the target instant (TFI)

A window may extend into the steps of neighbouring frames. The part before the first or after the
last frame is left out, and the sum is divided by the remaining steps; if none remain, the nearest
step is used. Rounding to float16 changes an intensity by less than 0.0005.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from vrtspike.config.model import ModelSettings
from vrtspike.errors import DataFormatError
from vrtspike.spikes.reconstruct import tfi
from vrtspike.spikes.timeline import Timeline
from vrtspike.spikes.voxels import add_up, bin_edges

Spikes = Bool[np.ndarray, "t s h w"]


@dataclass(frozen=True)
class SpikeRepresentation:
    """The channels that a model gets for each frame.

    `bins`: number of bins. `exposure` and `interval`: whether to add these images.
    """

    bins: int
    around: Literal["exposure", "target"] = "exposure"
    """What the bins divide: the exposure, or a window of its length centred on the target."""
    windows: tuple[float, ...] = ()
    """Length of each window as a fraction of `steps_per_frame`."""
    exposure: bool = False
    interval: bool = False
    voxels: Literal["rate", "log1p"] = "rate"
    """`rate`: bins as above; `log1p`: bins are log(1 + count)."""

    @classmethod
    def of(
        cls, model: ModelSettings, voxels: Literal["rate", "log1p"] = "rate"
    ) -> SpikeRepresentation | None:
        """Return the representation of a model's settings; None if it uses no spikes."""
        spike = model.spike
        if model.fusion == "none":
            return None
        return cls(
            spike.bins, spike.bins_around, spike.windows, spike.exposure, spike.interval, voxels
        )

    @property
    def channels(self) -> int:
        """Return the number of channels of a frame (c)."""
        return self.bins + len(self.windows) + self.exposure + self.interval

    def reach(self, timeline: Timeline) -> int:
        """Return how many frames before and after its own the windows of a frame can extend."""
        longest = max((self._length(share, timeline) for share in self.windows), default=0)
        if self.around == "target":
            longest = max(longest, timeline.exposure_steps)
        if self.interval:
            longest = max(longest, 2 * timeline.steps_per_frame)
        before = longest // 2 - timeline.target_step
        after = timeline.target_step + longest - longest // 2 - timeline.steps_per_frame
        return max(0, -(-max(before, after) // timeline.steps_per_frame))

    def __call__(
        self,
        spikes: Spikes,
        timeline: Timeline,
        threshold: float,
        *,
        frames: slice = slice(None),
        shift: int = 0,
        continuous: bool = True,
    ) -> Float[np.ndarray, "n c h w"]:
        """Return the channels of each frame in `frames` (default: all frames of `spikes`).

        `shift`: steps by which exposure and target are moved later. `continuous`: whether the
        frames' steps follow one another without a gap; if false, no window extends into a
        neighbour. Raises DataFormatError if a frame does not have `steps_per_frame` steps.
        """
        count, steps = spikes.shape[:2]
        if steps != timeline.steps_per_frame:
            raise DataFormatError(
                "the spikes are not the steps of a frame",
                got=f"{steps} steps",
                expected=f"{timeline.steps_per_frame} (steps_per_frame)",
            )
        stream = spikes.reshape(count * steps, *spikes.shape[2:])
        indices = range(count)[frames]
        out = np.empty((len(indices), self.channels, *spikes.shape[2:]), np.float16)
        for planes, index in zip(out, indices, strict=True):
            begin = index * steps
            source = stream if continuous else stream[begin : begin + steps]
            first = (begin if continuous else 0) + shift
            for plane, image in zip(
                planes, self._images(source, first, timeline, threshold), strict=True
            ):
                plane[...] = image
        return out

    def _images(
        self, stream: NDArray[np.bool_], first: int, timeline: Timeline, threshold: float
    ) -> Iterator[NDArray[np.floating]]:
        """Yield the channels of the frame whose first step in the stream is `first`."""
        start, stop = (first + edge for edge in timeline.exposure)
        target = first + timeline.target_step
        begin = target - timeline.exposure_steps // 2 if self.around == "target" else start
        for a, b in self._bins(timeline.exposure_steps):
            total, count = _sum(stream, begin + a, begin + b)
            if self.voxels == "log1p":
                yield np.log1p(total.astype(np.float32))
            else:
                yield total * np.float32(threshold / count)
        for share in self.windows:
            length = self._length(share, timeline)
            total, count = _sum(stream, target - length // 2, target - length // 2 + length)
            yield total * np.float32(threshold / count)
        if self.exposure:
            total, count = _sum(stream, start, stop)
            yield total * np.float32(threshold / count)
        if self.interval:
            lo = min(max(target - timeline.steps_per_frame, 0), len(stream) - 1)
            hi = max(min(target + timeline.steps_per_frame, len(stream)), lo + 1)
            instant = min(max(target, lo), hi)
            yield tfi(stream[lo:hi], step=instant - lo, threshold=threshold)

    def _bins(self, steps: int) -> list[tuple[int, int]]:
        """Return the first and last + 1 step of each bin; each bin has at least one step.

        If there are more bins than steps, several bins share a step.
        """
        if self.bins > steps:
            return [(k * steps // self.bins, k * steps // self.bins + 1) for k in range(self.bins)]
        return list(pairwise(bin_edges(steps, self.bins).tolist()))

    @staticmethod
    def _length(share: float, timeline: Timeline) -> int:
        """Return the length of a window in steps, at least 1."""
        return max(1, round(share * timeline.steps_per_frame))


def _sum(
    stream: NDArray[np.bool_], start: int, stop: int
) -> tuple[NDArray[np.unsignedinteger], int]:
    """Return the sum of the steps [start, stop) that are in the stream, and their number.

    If none are, return the nearest step and 1.
    """
    first = min(max(start, 0), len(stream) - 1)
    last = max(min(stop, len(stream)), first + 1)
    total = np.empty(stream.shape[1:], np.uint8 if last - first <= 255 else np.uint16)
    add_up(stream[first:last].view(np.uint8), total)
    return total, last - first
