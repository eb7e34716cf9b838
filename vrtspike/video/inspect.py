"""Video files: the frames that decoding one from its first frame on gives, and what is known of it.

In: a file that FFmpeg decodes (for `iter_frames`, a folder of images too). Out: frames
`(h, w, 3)`, 8-bit RGB of full range, turned and mirrored as a player shows them. Of several video
streams the first is read, cover pictures aside.

Colours: the matrix and range that the file states; where it states none, what FFmpeg takes for
granted: BT.601, limited range (full for `yuvj` formats). Neither gamma nor primaries are
converted, so `inspect_video_file` refuses high dynamic range (PQ, HLG), which would look washed
out. More than 8 bits are rounded, transparency is dropped.

Frames are numbered in the order of their presentation, from 0.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from jaxtyping import UInt8

from vrtspike.errors import DataFormatError, one_line
from vrtspike.storage.names import in_order
from vrtspike.video.image_file import IMAGE_ERRORS, IMAGE_SUFFIXES, open_image, pages, read_image
from vrtspike.video.side_data import display_matrix
from vrtspike.video.transport_stream import has_lost_packets

if TYPE_CHECKING:
    from av.container import InputContainer

Image = UInt8[np.ndarray, "h w 3"]
VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg"),
    *(".ts", ".m2ts", ".mts", ".wmv", ".flv", ".ogv", ".3gp"),
)
"""How the names of video files end, in lower case."""
HIGH_DYNAMIC_RANGE = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}
"""FFmpeg's numbers of the transfer functions that 8 bits do not hold."""
FIELDS = (2, 3, 4, 5)
"""FFmpeg's numbers of the orders in which the two fields of a frame are stored and shown."""
BEGIN_ANYWHERE = ("mpegts", "mpeg")
"""FFmpeg's names of formats whose clocks do not begin at 0."""
CONTAINERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "asf", "flv", "live_flv", "ogg"),
    *("mxf", "nut", "ivf", "dv", "gxf", "wtv", "gif", "apng", "yuv4mpegpipe"),
    *("h264", "hevc", "vvc", "av1", "obu", "vc1", "m4v", "mpegvideo", "mjpeg", "mjpeg_2000"),
    *("png_pipe", "jpeg_pipe", "bmp_pipe", "tiff_pipe", "webp_pipe"),
)
"""FFmpeg's names of the formats that are read: each is one file, and names no other. Lists
(`concat`), playlists (`hls`, `dash`), sessions (`sdp`) and scripts are not among them."""
EARLY_END_SECONDS = 0.5
"""How much earlier than the file says its last packet may end, in a file that is whole."""


@dataclass(frozen=True)
class VideoInfo:
    """What one decode of a video file has found."""

    path: Path
    frames: int
    height: int
    """In pixels, as shown: of a video that is stored lying on its side, the longer side."""
    width: int
    times: tuple[int, ...] | None
    """When each frame is shown, in `time_base`; None unless all are known, and increasing."""
    time_base: Fraction
    """In seconds."""
    rate: Fraction | None
    """Frames a second on average, as declared."""
    has_audio: bool
    begin: Fraction = Fraction(0)
    """When the file begins, in seconds; not 0 for formats whose clock begins anywhere (.ts)."""
    keyframes: tuple[int, ...] = ()
    """The numbers of the frames from which on decoding can begin."""
    fingerprints: tuple[int, ...] = ()
    """Of each key frame, what tells it from others."""
    pixel_aspect: Fraction = Fraction(1)
    """A pixel's width over its height, as shown."""


def inspect_video_file(path: Path) -> VideoInfo:
    """Decode a video file once, so that one that does not decode, or ends early, fails here.

    Formats that state no duration (.ts, .mpg) may be cut off anywhere: they hold what they hold.
    """
    times: list[int | None] = []
    keyframes: list[int] = []
    fingerprints: list[int] = []
    size, lying, end, flagged = (0, 0), False, Fraction(0), False
    with opened_video(path) as (container, stream):
        _refuse_high_dynamic_range(path, stream)
        _refuse_interlaced(path, stream.codec_context.field_order in FIELDS)
        for packet in container.demux():
            if packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream.index != stream.index:
                continue
            pictures = stream.decode(packet)
            # Where transport streams were joined a packet is flagged, too: its pictures tell.
            joined = packet.is_corrupt and container.format.name == "mpegts"
            flagged = flagged or joined
            if packet.is_corrupt > joined or any(frame.is_corrupt for frame in pictures):
                raise _damaged(path, f"a damaged picture after {len(times)} frames")
            for frame in pictures:
                lying, _, _ = _orientation(path, frame)
                _refuse_interlaced(path, frame.interlaced_frame)
                found = (frame.width, frame.height) if lying else (frame.height, frame.width)
                check_size(path, len(times), found, size if times else found)
                size = found
                if frame.key_frame:
                    keyframes.append(len(times))
                    fingerprints.append(fingerprint(frame))
                times.append(frame.pts)
        if not times:
            raise DataFormatError("the video holds no frame", where=path)
        if flagged and has_lost_packets(path, stream.id):
            raise _damaged(path, "packets that are missing or marked as damaged")
        if flagged:
            _decode_strictly(path, len(times))
        stated = (container.duration or 0) / 1e6
        if float(end) + EARLY_END_SECONDS < stated:
            raise _damaged(path, f"its end after {float(end):.2f} s of {stated:.2f} s")
        assert stream.time_base is not None
        return VideoInfo(
            path=path,
            frames=len(times),
            height=size[0],
            width=size[1],
            times=_increasing(times),
            time_base=stream.time_base,
            rate=stream.average_rate or None,
            has_audio=bool(container.streams.audio),
            begin=_begin(container),
            keyframes=tuple(keyframes),
            fingerprints=tuple(fingerprints),
            pixel_aspect=_pixel_aspect(stream, lying),
        )


def iter_frames(path: Path, start: int = 0) -> Iterator[Image]:
    """Decode the frames from number `start` on, one at a time; all must be of one size."""
    frames = folder_frames(path, start) if holds_images(path) else decoded_frames(path, start)
    size: tuple[int, ...] | None = None
    for number, frame in enumerate(frames, start):
        check_size(path, number, frame.shape, size or frame.shape)
        size = frame.shape
        yield frame


def holds_images(place: Path) -> bool:
    """Tell whether a place is a folder, or one image file, and no file of a video."""
    return place.is_dir() or (place.suffix.lower() in IMAGE_SUFFIXES and not _is_animation(place))


def _is_animation(file: Path) -> bool:
    """Tell whether an image file is an animated PNG, which is decoded as a video."""
    try:
        with open_image(file) as image:
            return image.format == "PNG" and pages(image) > 1
    except IMAGE_ERRORS:
        return False  # said when it is read, with the reason


def frame_files(folder: Path) -> list[Path]:
    """Return the image files of a folder in the order of their names, 2 before 10."""
    if folder.is_file():
        return [folder]
    names = (
        f.name
        for f in folder.iterdir()
        if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")
    )
    return [folder / name for name in in_order(names)]


def folder_frames(folder: Path, start: int = 0) -> Iterator[Image]:
    """Read the images of a folder."""
    for path in frame_files(folder)[start:]:
        yield read_image(path)


def decoded_frames(path: Path, start: int = 0) -> Iterator[Image]:
    """Decode a video file."""
    with opened_video(path) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            if number >= start:
                yield picture_of(path, frame)


def declared_rate(path: Path) -> float | None:
    """Return the frames a second that a video file declares."""
    with opened_video(path) as (_, stream):
        return float(stream.average_rate) if stream.average_rate else None


@contextmanager
def opened_video(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open a file that holds a video, and give its stream; damage found meanwhile is one error."""
    if not path.exists():
        raise DataFormatError("no such video", where=path)
    with decoding(path), _container(path) as container:
        covers = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
        streams = [s for s in container.streams.video if not s.disposition & covers]
        if not streams:
            raise DataFormatError("the file holds no video", where=path)
        if streams[0].codec_context is None:
            raise _damaged(path, "pictures of a codec that FFmpeg does not know")
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


def _container(path: Path) -> InputContainer:
    """Open a file that is one itself, and leads to no other, whatever its name or content says."""
    options = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
    try:
        # Without `file:` a colon in a name ends that of a protocol; titles and the like need not
        # be UTF-8.
        return av.open(f"file:{path}", options=options, metadata_errors="replace")
    except av.error.ArgumentError as error:
        raise DataFormatError(
            "the file is of no video format that is read",
            where=path,
            expected=f"one of {', '.join(CONTAINERS)} (FFmpeg's names)",
            fix="convert it: ffmpeg -i FILE NEW_FILE.mkv",
        ) from error


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn what FFmpeg says of a file into one error that names it."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        raise DataFormatError(
            "the video cannot be decoded",
            where=path,
            got=one_line(str(error).replace(f"file:{path}", str(path)), 160),
            expected="a video file that FFmpeg reads, or a folder of images",
        ) from error


def picture_of(path: Path, frame: av.VideoFrame) -> Image:
    """Return a decoded frame of a file as it is shown."""
    _refuse_interlaced(path, frame.interlaced_frame)
    picture = frame.to_ndarray(format="rgb24")
    lying, mirrored, flipped = _orientation(path, frame)
    if lying:
        picture = picture.swapaxes(0, 1)
    picture = picture[:: -1 if flipped else 1, :: -1 if mirrored else 1]
    return np.ascontiguousarray(picture, np.uint8)


def fingerprint(frame: av.VideoFrame) -> int:
    """Return the CRC-32 of a frame's colours."""
    return zlib.crc32(frame.to_ndarray(format="rgb24").tobytes())


def check_size(path: Path, number: int, got: Sequence[int], expected: Sequence[int]) -> None:
    """Refuse a frame of another size than those before it."""
    if tuple(got[:2]) != tuple(expected[:2]):
        raise DataFormatError(
            "the video changes its size",
            where=f"{path}, frame {number}",
            got=f"{got[0]}x{got[1]}",
            expected=f"{expected[0]}x{expected[1]}",
        )


def _orientation(path: Path, frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Tell whether to exchange a frame's axes, then reverse its columns, and its rows.

    The display matrix ((a, b, u), (c, d, v), (x, y, w)) shows the pixel that is stored at (p, q)
    at (a p + c q + x, b p + d q + y), divided by 65536.
    """
    matrix = display_matrix(frame)
    if matrix is None:
        return False, False, False
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    if a and d and not (b or c):
        return False, a < 0, d < 0
    if b and c and not (a or d):
        return True, c < 0, b < 0
    raise DataFormatError(
        "the video is turned by an angle that is no multiple of 90 degrees",
        where=path,
        got=f"{round(math.degrees(math.atan2(-b, a)))} degrees",
        expected="0, 90, 180 or 270 degrees",
        fix="turn its frames themselves: ffmpeg -i IN OUT",
    )


def _begin(container: InputContainer) -> Fraction:
    """Return when a file begins, in seconds, if its format's clock begins anywhere."""
    if container.format.name not in BEGIN_ANYWHERE:
        return Fraction(0)
    return Fraction(container.start_time or 0, 1_000_000)


def _pixel_aspect(stream: av.VideoStream, lying: bool) -> Fraction:
    """Return how much wider than high the pixels are shown; 1 where the file does not say."""
    stored = stream.sample_aspect_ratio or Fraction(1)
    return 1 / stored if lying else stored


def _increasing(times: list[int | None]) -> tuple[int, ...] | None:
    """Return presentation times that are all known and increasing, or None."""
    known = [time for time in times if time is not None]
    if len(known) < len(times) or any(after <= time for time, after in pairwise(known)):
        return None
    return tuple(known)


def _refuse_high_dynamic_range(path: Path, stream: av.VideoStream) -> None:
    """Refuse colours that 8 bits without conversion do not hold."""
    transfer = HIGH_DYNAMIC_RANGE.get(stream.codec_context.color_trc)
    if transfer is not None:
        raise DataFormatError(
            "the video is of high dynamic range",
            where=path,
            got=transfer,
            expected="standard dynamic range",
            fix="convert it to BT.709 first",
        )


def _refuse_interlaced(path: Path, interlaced: bool) -> None:
    """Refuse frames whose even and odd rows were exposed at two instants."""
    if interlaced:
        raise DataFormatError(
            "the video is interlaced",
            where=path,
            got="frames of two fields, each with its own instant",
            expected="progressive frames",
            fix="deinterlace it: ffmpeg -i IN -vf bwdif=mode=send_frame OUT; if it is progressive "
            "and marked wrongly: -vf setfield=prog",
        )


def _decode_strictly(path: Path, frames: int) -> None:
    """Decode a file again with a decoder that conceals no error; fewer frames are damage."""
    with opened_video(path) as (container, stream):
        stream.thread_type = "NONE"  # with threads a last error gets lost
        stream.codec_context.options = {"err_detect": "explode+bitstream+buffer"}
        count = 0
        try:
            for _ in container.decode(stream):
                count += 1
        except av.error.FFmpegError as error:
            raise _damaged(path, f"a damaged picture after {count} frames") from error
        if count < frames:
            raise _damaged(path, f"a damaged picture after {count} frames")


def _damaged(path: Path, got: str) -> DataFormatError:
    """Return the error on a file of which a part is missing or wrong."""
    return DataFormatError(
        "the video is damaged, or cut off",
        where=path,
        got=got,
        expected="a whole file",
        fix="copy it again, or keep what can be decoded: ffmpeg -i FILE NEW_FILE",
    )
