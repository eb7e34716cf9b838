"""Frames of a video file by number, exactly those that decoding from its first frame on gives.

In: what `inspect_video_file` found. Out: ranges of frames `(t, h, w, 3)`, 8-bit RGB.

Ranges that go forwards, whether they overlap, touch or leave gaps, decode each frame once. A jump
goes to a key frame before the frame that is wanted and decodes on from there. Its colours and its
time tell whether it is the one that it should be, and times tell whether those after it are; where
they are not what the whole decode has found, decoding begins at the first frame again. So a wrong
frame is never returned, however poorly a container seeks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING

import av
import numpy as np
from jaxtyping import UInt8

from vrtspike.errors import DataFormatError
from vrtspike.video.inspect import (
    Image,
    VideoInfo,
    check_size,
    decoding,
    fingerprint,
    opened_video,
    picture_of,
)

if TYPE_CHECKING:
    from av.container import InputContainer


class VideoReader:
    """Ranges of a video's frames; memory holds the last range, whatever the video's length."""

    def __init__(self, info: VideoInfo) -> None:
        self.info = info
        self.decoded = 0
        """How many frames the decoder has given, those passed over included."""
        self._fingerprints = dict(zip(info.keyframes, info.fingerprints, strict=True))
        self._kept: dict[int, Image] = {}
        self._opened = ExitStack()
        self._container: InputContainer | None = None
        self._stream: av.VideoStream
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._next = 0
        self._jumped = False

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and forget the frames; reading opens it again."""
        self._opened.close()
        self._container, self._kept = None, {}

    @property
    def frames_in_memory(self) -> int:
        """Return how many frames are kept."""
        return len(self._kept)

    def read(self, start: int, stop: int) -> UInt8[np.ndarray, "t h w 3"]:
        """Return the frames `[start, stop)`; a range that leaves the video is an error."""
        info = self.info
        if not 0 <= start <= stop <= info.frames:
            raise DataFormatError(
                "the range leaves the video",
                where=info.path,
                got=f"[{start}, {stop})",
                expected=f"frames within [0, {info.frames})",
            )
        self._kept = {n: frame for n, frame in self._kept.items() if start <= n < stop}
        frames = np.empty((stop - start, info.height, info.width, 3), np.uint8)
        for number in range(start, stop):
            if number not in self._kept:
                self._kept[number] = self._picture(number)
            frames[number - start] = self._kept[number]
        return frames

    def _picture(self, number: int) -> Image:
        """Decode up to a frame and return it."""
        info = self.info
        with decoding(info.path):
            self._come_near(number)
            while self._next < number:
                self._decode()
            picture = picture_of(info.path, self._decode())
        check_size(info.path, number, picture.shape, (info.height, info.width))
        return picture

    def _come_near(self, number: int) -> None:
        """Let the decoder be at a frame, or before it with no key frame in between."""
        keyframes, times = self.info.keyframes, self.info.times
        place = -1 if times is None else bisect_right(keyframes, number) - 1
        nearest = keyframes[place] if place >= 0 else 0
        if self._container is not None and nearest <= self._next <= number:
            return
        step = 1
        # A container may seek by other times, and too far: then towards ever earlier key frames.
        while place > 0:
            if self._jump(keyframes[place], number):
                return
            place, step = place - step, 2 * step
        self._begin()

    def _begin(self) -> InputContainer:
        """Open the file, again if need be, to decode it from its first frame on."""
        self._opened.close()
        container, self._stream = self._opened.enter_context(opened_video(self.info.path))
        self._frames = container.decode(self._stream)
        self._container, self._next, self._jumped = container, 0, False
        if self._stream.time_base != self.info.time_base:
            raise self._changed("times in other units")
        return container

    def _jump(self, keyframe: int, number: int) -> bool:
        """Seek a key frame, and tell whether the decoder is at one that is not past `number`."""
        container, times = self._container or self._begin(), self.info.times
        assert times is not None
        self._jumped = True
        try:
            container.seek(times[keyframe], stream=self._stream)
            self._frames = container.decode(self._stream)
            for frame in self._frames:
                if frame.key_frame and frame.pts is not None:
                    self._frames = chain([frame], self._frames)
                    self._next = bisect_left(times, frame.pts)
                    # Some formats (.mpg) have their times guessed after a seek, and wrongly.
                    return (
                        self._next <= number
                        and times[self._next] == frame.pts
                        and self._fingerprints.get(self._next) == fingerprint(frame)
                    )
                self.decoded += 1
        except av.error.FFmpegError:
            return False
        return False

    def _decode(self) -> av.VideoFrame:
        """Return the next frame; one that is not what the whole decode has found is an error."""
        number, times = self._next, self.info.times
        frame = next(self._frames, None)
        if frame is not None and (times is None or frame.pts == times[number]):
            self.decoded += 1
            self._next += 1
            return frame
        if not self._jumped:
            raise self._changed(
                f"no frame {number}" if frame is None else f"frame {number} at {frame.pts}"
            )
        self._begin()
        while self._next < number:
            self._decode()
        return self._decode()

    def _changed(self, got: str) -> DataFormatError:
        """Return the error on a file that is not the one that was inspected."""
        return DataFormatError(
            "the video is not what it was when it was inspected",
            where=self.info.path,
            got=got,
            expected=f"{self.info.frames} frames at the same times",
        )
