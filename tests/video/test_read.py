"""Any range of frames is that of a sequential decode, read with little decoding and memory."""

from __future__ import annotations

import random
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.video.video_files import encode, moving
from vrtspike.errors import DataFormatError
from vrtspike.video.inspect import VideoInfo, inspect_video_file, iter_frames
from vrtspike.video.read import VideoReader

FRAMES = moving(90)
IRREGULAR = [40 * n + (7 * n) % 31 + (3000 if n > 50 else 0) for n in range(90)]
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "long groups": ("a.mp4", {"options": {"g": "30", "bf": "3"}}),
    "one group": ("a.mov", {"options": {"g": "250", "bf": "2"}}),
    "short groups": ("a.mp4", {"options": {"g": "3", "bf": "2"}}),
    "key frames only": ("a.mp4", {"options": {"g": "1"}}),
    "open groups": ("a.mkv", {"options": {"x264-params": "open-gop=1:keyint=20:bframes=3"}}),
    "intra refresh": ("a.mp4", {"options": {"x264-params": "intra-refresh=1:keyint=20"}}),
    "fragments": (
        "a.mp4",
        {"options": {"g": "30"}, "muxing": {"movflags": "frag_keyframe+empty_moov"}},
    ),
    "irregular times": ("a.mkv", {"options": {"g": "20"}, "milliseconds": IRREGULAR}),
    "irregular times, mp4": ("a.mp4", {"options": {"g": "20"}, "milliseconds": IRREGULAR}),
    "transport stream": ("a.ts", {"options": {"g": "10", "bf": "2"}}),
    "no times": ("a.h264", {"options": {"g": "30", "bf": "2"}}),
    "mpeg4": ("a.avi", {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}}),
    "mpeg2": ("a.mpg", {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}}),
    "vp9": (
        "a.webm",
        {"codec": "libvpx-vp9", "options": {"g": "30", "deadline": "realtime", "cpu-used": "8"}},
    ),
    "ffv1": ("a.mkv", {"codec": "ffv1"}),
    "mjpeg": ("a.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "lying": ("a.mp4", {"options": {"g": "30"}, "rotation": (90,)}),
}


def decoded(path: Path) -> tuple[VideoInfo, NDArray[np.uint8]]:
    """Return what a file holds, and all of its frames."""
    return inspect_video_file(path), np.stack(list(iter_frames(path)))


@pytest.mark.parametrize("kind", KINDS)
def test_any_range_is_that_of_a_sequential_decode(tmp_path: Path, kind: str) -> None:
    name, given = KINDS[kind]
    info, frames = decoded(encode(tmp_path / name, FRAMES, **given))
    assert frames.shape == (90, info.height, info.width, 3)
    draw = random.Random(0)
    with VideoReader(info) as reader:
        for _ in range(25):
            start = draw.randrange(90)
            stop = min(90, start + draw.randrange(12))
            np.testing.assert_array_equal(reader.read(start, stop), frames[start:stop])
        np.testing.assert_array_equal(reader.read(0, 90), frames)


@pytest.mark.parametrize("kind", ["long groups", "no times", "transport stream"])
@pytest.mark.parametrize(("length", "stride"), [(8, 8), (8, 5), (8, 1), (4, 7)])
def test_forwards_each_frame_is_decoded_once(
    tmp_path: Path, kind: str, length: int, stride: int
) -> None:
    name, given = KINDS[kind]
    info, frames = decoded(encode(tmp_path / name, FRAMES, **given))
    with VideoReader(info) as reader:
        for start in range(0, 90 - length + 1, stride):
            stop = start + length
            np.testing.assert_array_equal(reader.read(start, stop), frames[start:stop])
            assert reader.frames_in_memory == length
            assert reader.decoded <= stop
    assert reader.decoded == stop or stride > length, "a gap that a key frame is in is left out"


def test_jumps_begin_at_key_frames(tmp_path: Path) -> None:
    info, frames = decoded(encode(tmp_path / "a.mp4", FRAMES, options={"g": "10", "bf": "3"}))
    with VideoReader(info) as reader:
        for jumps, start in enumerate((83, 41, 62, 5, 77), 1):
            np.testing.assert_array_equal(reader.read(start, start + 2), frames[start : start + 2])
            assert reader.decoded <= 12 * jumps


def test_what_is_read_may_be_changed(tmp_path: Path) -> None:
    info, frames = decoded(encode(tmp_path / "a.mp4", FRAMES[:9]))
    with VideoReader(info) as reader:
        reader.read(0, 9)[:] = 0
        np.testing.assert_array_equal(reader.read(2, 9), frames[2:])


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "40", "bf": "3"}),
        ("a.mkv", "libx264", {"g": "40", "bf": "3"}),
        ("a.ts", "libx264", {"g": "40", "bf": "3"}),
        ("b.ts", "libx264", {"x264-params": "intra-refresh=1:keyint=20"}),
        ("c.ts", "libx264", {"x264-params": "open-gop=1:keyint=20:bframes=3"}),
        ("a.mpg", "mpeg2video", {"g": "20", "bf": "2"}),
        ("a.avi", "mpeg4", {"g": "20", "bf": "2"}),
    ],
)
def test_seeks_that_go_astray_return_no_wrong_frame(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    """Decoding cannot begin at most of the frames that are said to be key frames."""
    info, frames = decoded(encode(tmp_path / name, FRAMES, codec, options=options))
    alike = [zlib.crc32(frame) for frame in frames]
    for keyframes in (info.keyframes, tuple(range(90)), (0, 50, 89), (), (7,)):
        said = tuple(alike[n] for n in keyframes)
        with VideoReader(replace(info, keyframes=keyframes, fingerprints=said)) as reader:
            for start in (70, 10, 88, 45, 0, 51):
                np.testing.assert_array_equal(
                    reader.read(start, start + 2), frames[start : start + 2]
                )


def test_a_file_that_has_changed_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    info, _ = decoded(encode(path, FRAMES))
    for given in (
        {"rate": 30},
        {"rate": 50},
        {"frames": FRAMES[:40]},
        {"frames": moving(90, 64, 64)},
    ):
        encode(path, **({"frames": FRAMES} | given))  # type: ignore[arg-type]
        with (
            VideoReader(info) as reader,
            pytest.raises(DataFormatError, match=r"not what it was|changes its size") as caught,
        ):
            reader.read(0, 90)
        assert str(path) in str(caught.value)
    path.unlink()
    with VideoReader(info) as reader, pytest.raises(DataFormatError, match="no such video"):
        reader.read(3, 4)


def test_ranges_that_leave_the_video_are_refused(tmp_path: Path) -> None:
    info, frames = decoded(encode(tmp_path / "a.mp4", FRAMES[:9]))
    with VideoReader(info) as reader:
        assert reader.read(4, 4).shape == (0, 48, 64, 3)
        for start, stop in ((-1, 3), (3, 10), (5, 4)):
            with pytest.raises(DataFormatError, match=r"leaves the video.*within \[0, 9\)"):
                reader.read(start, stop)
    np.testing.assert_array_equal(reader.read(3, 5), frames[3:5]), "opened again"
    reader.close()


def test_a_real_video_is_read_in_any_order(shared: Path) -> None:
    info, frames = decoded(shared / "data" / "bikes.mp4")
    with VideoReader(info) as reader:
        for start in (240, 3, 75, 76, 190, 120, 137):
            np.testing.assert_array_equal(reader.read(start, start + 5), frames[start : start + 5])
        assert reader.decoded < 7 * 66
