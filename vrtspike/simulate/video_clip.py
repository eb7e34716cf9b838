"""Random clips of sharp videos, which replace rendered scenes in some sequences.

In: a video (a file, or a folder of frames), and the timeline and generator of a sequence. Out: a
`VideoClip`, which renders the light at any instant of `[0, frames * steps_per_frame]`, as a `Scene`
does: float32 RGB `(n, h, w, 3)` in [0, 1]. A clip is a part of the video in time and space, reduced
in size. Between two frames of the video we interpolate along the optical flow
(`vrtspike.simulate.interpolation`). The target instant of each frame of the sequence is the time of
a frame of the video. A clip never crosses a cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from vrtspike.config.scenes import FilmSettings
from vrtspike.errors import ConfigError
from vrtspike.simulate.video import InterpolatedVideo, VideoSource, inspect_video
from vrtspike.spikes.timeline import Timeline

Frame = UInt8[np.ndarray, "h w 3"]


class VideoClip:
    """A random clip of `height` x `width` pixels, for a sequence of `frames` frames."""

    def __init__(
        self,
        video: Path,
        settings: FilmSettings,
        timeline: Timeline,
        rng: np.random.Generator,
        *,
        frames: int,
        height: int,
        width: int,
    ) -> None:
        source = inspected(video)
        speed = int(rng.integers(settings.source_frames[0], settings.source_frames[1] + 1))
        self._timeline, self._rate = timeline, speed / timeline.steps_per_frame
        # Frames of the video before the first target, so that its exposure lies in the clip.
        lead = math.ceil(timeline.target_step * self._rate)
        first = draw_start(source, frames * speed + 2, rng)
        self._target = first + lead
        view = draw_view(source, settings.reduce, height, width, rng)
        self._light = InterpolatedVideo(video, first, view=view)

    def render(self, instants: NDArray[np.float64]) -> Float[np.ndarray, "n h w 3"]:
        """Return the light at the given instants; they must not go back by more than a frame."""
        times = self._target + (instants - self._timeline.target_step) * self._rate
        self._light.forget_before(float(times.min()) - self._timeline.steps_per_frame * self._rate)
        return self._light.at(times)


@lru_cache(maxsize=1024)
def inspected(video: Path) -> VideoSource:
    """Inspect a video once per process."""
    return inspect_video(video)


def draw_start(source: VideoSource, need: int, rng: np.random.Generator) -> int:
    """Draw the first frame of a clip of `need` frames, uniformly among all clips without a cut.

    Raise ConfigError if no shot is long enough.
    """
    rooms = [max(0, stop - start - need + 1) for start, stop in source.shots]
    if not sum(rooms):
        raise ConfigError(
            "the video has no shot as long as a sequence",
            where=source.path,
            got=f"{source.frames} frames in {len(source.shots)} shots",
            expected=f"{need} frames without a cut",
            fix="lower scenes.films.source_frames or scenes.frames, or take another video",
        )
    place = int(rng.integers(sum(rooms)))
    for room, (start, _) in zip(rooms, source.shots, strict=True):
        if place < room:
            return start + place
        place -= room
    raise AssertionError("a place lies in one of the rooms")


def draw_view(
    source: VideoSource,
    reduce: tuple[int, int],
    height: int,
    width: int,
    rng: np.random.Generator,
    smaller: int = 1,
) -> Callable[[Frame], Frame]:
    """Return a function that cuts a random part of a frame and reduces it to `height` x `width`.

    The factor of reduction is drawn from the range `reduce` and multiplied by `smaller`, but not
    above what the video allows. Raise ConfigError if the video is too small for `reduce`.
    """
    largest = min(source.height // height, source.width // width)
    if largest < reduce[0]:
        raise ConfigError(
            "the video is smaller than the frames that are cut out of it",
            where=source.path,
            got=f"{source.height}x{source.width}",
            expected=f"at least {height * reduce[0]}x{width * reduce[0]}",
            fix="lower scenes.height, scenes.width or scenes.films.reduce",
        )
    factor = min(largest, smaller * int(rng.integers(reduce[0], min(reduce[1], largest) + 1)))
    top = int(rng.integers(source.height - height * factor + 1))
    left = int(rng.integers(source.width - width * factor + 1))

    def view(frame: Frame) -> Frame:
        part = frame[top : top + height * factor, left : left + width * factor]
        if factor == 1:
            return part
        return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA))

    return view
