"""Writing video files: frames as they come, the times and the sound of the video they come from.

In: frames `(h, w, 3)`, 8-bit RGB, one at a time. Out: a `.mp4`, `.mov` or `.mkv` file, whole or not
at all, of H.264 at a quality that eyes do not tell from the frames (or MPEG-4 part 2, where FFmpeg
was built without libx264). Colours are stored, and tagged, as BT.709 of limited range; chroma has
half the resolution unless a side is odd.

Of a video that the frames are made of (`like`), each frame keeps its presentation time, so that
variable rates stay what they are; several pictures of each frame share its time evenly. The audio
streams are copied packet by packet, in sync. One that the container does not hold is encoded anew,
as AAC. A container that knows no times before 0 (`.mkv`) has all times, of pictures and sound,
moved by the same amount. Subtitles and chapters are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.storage.atomic import whole_file
from vrtspike.storage.folder import check_target
from vrtspike.video.audio import Sound
from vrtspike.video.inspect import Image, VideoInfo

if TYPE_CHECKING:
    from av.container import OutputContainer

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Suffixes that name a container to write, and FFmpeg's names of them."""
CRF = "10"
"""Constant rate factor of libx264: 42.7 dB of PSNR in RGB, or more, for real frames."""
BT709 = 1
"""FFmpeg's number of the primaries and of the transfer function."""
MPEG4_CLOCK = Fraction(1, 60_000)
"""In seconds; MPEG-4 part 2 knows no clock finer than 1 / 65535."""


@dataclass(frozen=True)
class _Clock:
    """When frames are shown: frame n at `at(n)`, in `time_base`."""

    time_base: Fraction
    rate: Fraction
    """Frames a second, on average."""
    at: Callable[[int], int]
    lead: Fraction = Fraction(0)
    """Seconds by which everything is shown earlier than in the original."""

    def divided(self, each: int) -> _Clock:
        """Return when `each` pictures of every frame are shown that share its time evenly."""

        def at(number: int) -> int:
            frame, part = divmod(number, each)
            begin = self.at(frame)
            return each * begin + (part * (self.at(frame + 1) - begin) if part else 0)

        return replace(self, time_base=self.time_base / each, rate=self.rate * each, at=at)


def check_video_target(path: Path) -> None:
    """Refuse a video to write that cannot be one, before the work whose result it is to hold."""
    if path.suffix.lower() not in CONTAINERS:
        raise ConfigError(
            "the suffix names no video that can be written",
            where=path,
            got=path.suffix or "no suffix",
            expected=", ".join(CONTAINERS),
        )
    check_target(path)


def write_video(
    path: Path,
    frames: Iterator[Image],
    *,
    fps: Fraction | None = None,
    like: VideoInfo | None = None,
    start: int = 0,
    each: int = 1,
) -> int:
    """Write a video, whole or not at all, and return its number of frames.

    `like`: the video that the frames are those of, from number `start` to the last. Frame `start`
    takes the place of frame 0, and the sound before it is left out. `fps`: frames a second, where
    no `like` says when they are shown. Of every such frame there are `each` pictures, one after
    the other, in the time of that frame.
    """
    check_video_target(path)
    clock = _clock(fps, like, start).divided(each)
    expected = None if like is None else (like.frames - start) * each
    with whole_file(path) as temporary, _writing(temporary, path) as container:
        video = _add_video(container, clock, like)
        with Sound(container, like, clock.lead) as sound:
            count = 0
            for count, picture in enumerate(_numbered(path, frames, expected), 1):
                if count == 1:
                    _set_size(video, picture)
                time = clock.at(count - 1)
                container.mux(video.encode(_encodable(picture, video, time, clock.time_base)))
                sound.write_until(time * clock.time_base)
            container.mux(video.encode())
            sound.write_until(None)
    return count


def _clock(fps: Fraction | None, like: VideoInfo | None, start: int) -> _Clock:
    """Return when frames are shown; what is said twice, or not at all, is an error."""
    if like is not None and not 0 <= start < like.frames:
        raise ConfigError(
            "the first frame is none of the video's",
            where=like.path,
            got=start,
            expected=f"0 to {like.frames - 1}",
        )
    if like is None or like.times is None:
        rate = fps or (like.rate if like is not None else None)
        if rate is None or rate <= 0 or (like is None and start):
            raise ConfigError(
                "nothing says when the frames are shown",
                where=like.path if like is not None else None,
                got=f"{fps} frames a second",
                expected="a positive rate, or a video with times",
            )
        return _Clock(1 / rate, rate, lambda number: number, start / rate)
    if fps is not None:
        raise ConfigError(
            "the frames keep the times of their video",
            where=like.path,
            got=f"{fps} frames a second",
        )
    begin = round(like.begin / like.time_base)
    times, shift = like.times, like.times[start] - like.times[0] + begin
    length = (times[-1] - times[0]) * like.time_base
    rate = like.rate or (Fraction(len(times) - 1) / length if length else Fraction(25))
    last = times[-1] - times[-2] if len(times) > 1 else round(1 / rate / like.time_base)
    times = (*times, times[-1] + last)  # when the last frame ends
    return _Clock(
        like.time_base,
        rate.limit_denominator(1001),
        lambda number: times[start + number] - shift,
        shift * like.time_base,
    )


def _add_video(container: OutputContainer, clock: _Clock, like: VideoInfo | None) -> av.VideoStream:
    """Add the stream of pictures, all of it but its size."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    video = container.add_stream(codec, rate=clock.rate)
    assert isinstance(video, av.VideoStream)
    context = video.codec_context
    context.time_base = clock.time_base
    if codec == "libx264":
        context.options = {"crf": CRF}
    else:
        context.qmin, context.qmax = 1, 2
        if clock.time_base.denominator > 65535:
            context.time_base = MPEG4_CLOCK
    video.time_base = context.time_base
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries = context.color_trc = BT709
    if like is not None and like.pixel_aspect != 1:
        context.sample_aspect_ratio = like.pixel_aspect
    return video


def _set_size(video: av.VideoStream, picture: Image) -> None:
    """Give the stream the size of its pictures."""
    video.height, video.width = picture.shape[:2]
    odd = any(side % 2 for side in picture.shape[:2])
    video.pix_fmt = "yuv444p" if odd and video.codec_context.name == "libx264" else "yuv420p"


def _numbered(path: Path, frames: Iterator[Image], expected: int | None) -> Iterator[Image]:
    """Yield frames, which must be of one size, and as many as are expected."""
    count, size = 0, None
    for picture in frames:
        if expected is not None and count == expected:
            raise _other_number(path, "more", expected)
        if size is not None and picture.shape != size:
            raise DataFormatError(
                "the frames to write are of several sizes",
                where=f"{path}, frame {count}",
                got="{}x{}".format(*picture.shape),
                expected="{}x{}".format(*size),
            )
        yield picture
        count, size = count + 1, picture.shape
    if count != expected and (expected is not None or not count):
        raise _other_number(path, count, expected or "one or more")


def _other_number(path: Path, got: object, expected: object) -> DataFormatError:
    """Return the error on frames that are not as many as the video has."""
    return DataFormatError(
        "another number of frames to write", where=path, got=got, expected=expected
    )


def _encodable(
    picture: Image, video: av.VideoStream, time: int, time_base: Fraction
) -> av.VideoFrame:
    """Return a picture in the stream's own pixels and time."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(
        format=video.pix_fmt,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.AREA
        | Interpolation.ACCURATE_RND
        | Interpolation.FULL_CHR_H_INP,
    )
    frame.pts, frame.time_base = time, time_base
    return frame


@contextmanager
def _writing(temporary: Path, path: Path) -> Iterator[OutputContainer]:
    """Open a file to write; what FFmpeg says of it, as of a full disk, becomes an OSError."""
    try:
        with av.open(f"file:{temporary}", "w", format=CONTAINERS[path.suffix.lower()]) as container:
            yield container
    except av.error.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error
