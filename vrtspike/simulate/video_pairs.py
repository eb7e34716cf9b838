"""Pairs of frames of a real video; their flow is DIS flow between the sharp frames.

In: an inspected video and a generator. Out: pairs of cut frames, degraded as inputs of the flow
network (`vrtspike.simulate.degradation`), and their flow, float32 `(2, h, w)` in pixels. The flow
is NaN where forward and backward flow are inconsistent, which happens where a point is hidden,
leaves the cut, or is matched wrongly:

    |F(x) + B(x + F(x))|^2 > SLACK + RELATIVE (|F(x)|^2 + |B(x + F(x))|^2)

(Sundaram et al., ECCV 2010). No pair crosses a cut. A frame is blurred along its own flow.
"""

from __future__ import annotations

from itertools import islice

import cv2
import numpy as np
from einops import rearrange, reduce
from jaxtyping import Float, UInt8

from vrtspike.config.scenes import FilmSettings
from vrtspike.simulate.degradation import Light, degraded, draw_kind
from vrtspike.simulate.interpolation import Field, dense_flow, sample_at
from vrtspike.simulate.video import VideoSource
from vrtspike.simulate.video_clip import draw_start, draw_view
from vrtspike.video.inspect import iter_frames

SLACK, RELATIVE = 0.5, 0.01
STRETCH = 4
"""Number of frames read in addition to those that the longest pair spans, so that pairs differ."""
TRIES = 3
"""Number of parts of the frame tried for a pair; we take the one that changes most, because large
parts of many videos hardly change."""
BLUR_INSTANTS = 7

FilmPair = tuple[UInt8[np.ndarray, "2 3 h w"], Float[np.ndarray, "2 h w"]]


class VideoPairs:
    """Draws pairs from a few consecutive frames of a video."""

    def __init__(
        self, source: VideoSource, settings: FilmSettings, longest: float, rng: np.random.Generator
    ) -> None:
        self._source, self._settings, self._longest, self._rng = source, settings, longest, rng
        count = settings.source_frames[1] + STRETCH
        longest_shot = max(stop - start for start, stop in source.shots)
        start = draw_start(source, min(count, longest_shot), rng)
        self._frames = list(islice(iter_frames(source.path, start), min(count, longest_shot)))

    def draw(self, height: int, width: int, scale: int) -> tuple[FilmPair, FilmPair]:
        """Draw a pair of `height` x `width` pixels; return it forwards and backwards in time.

        The video is reduced `scale` times. The flow of reduced pairs is estimated on frames of
        twice their size.
        """
        finer = 1 if scale == 1 else 2
        first, second = self._cut(height * finer, width * finer, scale // finer)
        flows = [dense_flow(first, second), dense_flow(second, first)]
        kind = draw_kind(self._rng)

        def mean(exposure: float) -> Light:
            return np.stack(
                [
                    _blurred(*frame_and_flow, exposure)
                    for frame_and_flow in zip((first, second), flows, strict=True)
                ]
            )

        images = degraded(kind, mean, self._longest, self._rng)
        consistent = [_consistent(flows[0], flows[1]), _consistent(flows[1], flows[0])]
        if finer > 1:
            squares = "... (h a) (w b) -> ... h w"
            images = np.rint(reduce(images.astype(np.float32), squares, "mean", a=finer, b=finer))
            images = images.astype(np.uint8)
            consistent = [
                reduce(flow, squares, "mean", a=finer, b=finer) / finer for flow in consistent
            ]
        return (images, consistent[0]), (images[::-1], consistent[1])

    def _cut(
        self, height: int, width: int, smaller: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]:
        """Draw two frames; of `TRIES` parts of them, return the part that changes most."""
        rng, (shortest, longest) = self._rng, self._settings.source_frames
        longest = min(longest, len(self._frames) - 1)
        interval = int(rng.integers(min(shortest, longest), longest + 1))
        first = int(rng.integers(len(self._frames) - interval))
        frames = self._frames[first], self._frames[first + interval]
        pieces = []
        for _ in range(TRIES):
            view = draw_view(self._source, self._settings.reduce, height, width, rng, smaller)
            pieces.append((view(frames[0]), view(frames[1])))
        return max(pieces, key=lambda pair: float(cv2.absdiff(*pair).mean()))


def _blurred(frame: UInt8[np.ndarray, "h w 3"], flow: Field, exposure: float) -> Light:
    """Return the mean of a frame that moves along its flow during an exposure.

    `flow` is the motion in the time between the pair's frames, the unit of `exposure`.
    """
    light = frame * np.float32(1 / 255)
    if not exposure:
        return light
    shares = exposure * ((np.arange(BLUR_INSTANTS) + 0.5) / BLUR_INSTANTS - 0.5)
    instants = [sample_at(light, np.float32(share) * flow) for share in shares]
    return np.asarray(np.mean(instants, axis=0, dtype=np.float32))


def _consistent(flow: Field, back: Field) -> Float[np.ndarray, "2 h w"]:
    """Return a flow with NaN where the backward flow does not lead back to the same pixel."""
    returned = sample_at(back, flow)
    error = np.square(flow + returned).sum(axis=-1)
    lengths = np.square(flow).sum(axis=-1) + np.square(returned).sum(axis=-1)
    wrong = error > SLACK + RELATIVE * lengths
    return rearrange(np.where(wrong[..., None], np.float32(np.nan), flow), "h w xy -> xy h w")
