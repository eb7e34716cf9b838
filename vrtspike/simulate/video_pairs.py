"""Pairs of frames of a real video, with DIS flow between its sharp frames in place of exact motion.

In: a video that was inspected, and a generator. Out: pairs of pieces of its frames as the flow
network sees them (`vrtspike.simulate.degradation`), and their flow, float32 `(2, h, w)`; NaN where
forward and backward flow contradict each other, which they do where something is hidden, leaves the
piece, or was not found:

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
"""Frames that are read beyond those of the longest pair: pairs of a stretch differ."""
TRIES = 3
"""Places that are looked at for a pair: the one is taken in which most changes. In many videos
nearly nothing does."""
BLUR_INSTANTS = 7

FilmPair = tuple[UInt8[np.ndarray, "2 3 h w"], Float[np.ndarray, "2 h w"]]


class VideoPairs:
    """A stretch of a video, out of which pairs are cut."""

    def __init__(
        self, source: VideoSource, settings: FilmSettings, longest: float, rng: np.random.Generator
    ) -> None:
        self._source, self._settings, self._longest, self._rng = source, settings, longest, rng
        count = settings.source_frames[1] + STRETCH
        most = max(stop - start for start, stop in source.shots)
        start = draw_start(source, min(count, most), rng)
        self._frames = list(islice(iter_frames(source.path, start), min(count, most)))

    def draw(self, height: int, width: int, scale: int) -> tuple[FilmPair, FilmPair]:
        """Cut out a pair of `height` x `width` pixels, there and back, `scale` times reduced.

        Reduced pairs get the flow that is found on frames of twice their size.
        """
        finer = 1 if scale == 1 else 2
        first, second = self._cut(height * finer, width * finer, scale // finer)
        flows = [dense_flow(first, second), dense_flow(second, first)]
        kind = draw_kind(self._rng)

        def mean(exposure: float) -> Light:
            return np.stack(
                [_blurred(*of, exposure) for of in zip((first, second), flows, strict=True)]
            )

        seen = degraded(kind, mean, self._longest, self._rng)
        known = [_consistent(flows[0], flows[1]), _consistent(flows[1], flows[0])]
        if finer > 1:
            squares = "... (h a) (w b) -> ... h w"
            seen = np.rint(reduce(seen.astype(np.float32), squares, "mean", a=finer, b=finer))
            seen = seen.astype(np.uint8)
            known = [reduce(flow, squares, "mean", a=finer, b=finer) / finer for flow in known]
        return (seen, known[0]), (seen[::-1], known[1])

    def _cut(
        self, height: int, width: int, smaller: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]:
        """Draw two frames, and where most changes between them of a few pieces of them."""
        rng, (least, most) = self._rng, self._settings.source_frames
        most = min(most, len(self._frames) - 1)
        apart = int(rng.integers(min(least, most), most + 1))
        place = int(rng.integers(len(self._frames) - apart))
        frames = self._frames[place], self._frames[place + apart]
        pieces = []
        for _ in range(TRIES):
            view = draw_view(self._source, self._settings.reduce, height, width, rng, smaller)
            pieces.append((view(frames[0]), view(frames[1])))
        return max(pieces, key=lambda pair: float(cv2.absdiff(*pair).mean()))


def _blurred(frame: UInt8[np.ndarray, "h w 3"], flow: Field, exposure: float) -> Light:
    """Return the mean of a frame that moves along its flow, which is that of an interval."""
    light = frame * np.float32(1 / 255)
    if not exposure:
        return light
    shares = exposure * ((np.arange(BLUR_INSTANTS) + 0.5) / BLUR_INSTANTS - 0.5)
    instants = [sample_at(light, np.float32(share) * flow) for share in shares]
    return np.asarray(np.mean(instants, axis=0, dtype=np.float32))


def _consistent(flow: Field, back: Field) -> Float[np.ndarray, "2 h w"]:
    """Return a flow with NaN where the flow back does not lead to where it came from."""
    returned = sample_at(back, flow)
    off = np.square(flow + returned).sum(axis=-1)
    lengths = np.square(flow).sum(axis=-1) + np.square(returned).sum(axis=-1)
    wrong = off > SLACK + RELATIVE * lengths
    return rearrange(np.where(wrong[..., None], np.float32(np.nan), flow), "h w xy -> xy h w")
