"""Videos are written as they come, hold what they were given, and leave nothing when they fail."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.video.video_files import Frames, Track, encode, moving, psnr
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.video.inspect import inspect_video_file, iter_frames
from vrtspike.video.write import check_video_target, write_video

FRAMES = moving(40)
IRREGULAR = [33 * n + (7 * n) % 31 + (700 if n > 20 else 0) for n in range(40)]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".MP4"])
@pytest.mark.parametrize("size", [(48, 64), (47, 64), (47, 63)])
def test_frames_come_back(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    path, frames = tmp_path / f"a film é{suffix}", moving(12, *size)
    assert write_video(path, iter(frames), fps=Fraction(30)) == 12
    info = inspect_video_file(path)
    assert (info.frames, info.height, info.width, info.rate) == (12, *size, 30)
    assert psnr(list(iter_frames(path)), frames) > 37, "a photograph of small and vivid things"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_colours_are_bt709_of_limited_range_and_say_so(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    for rgb in ((255, 255, 255), (0, 0, 0), (200, 40, 40), (30, 60, 220)):
        flat = np.broadcast_to(np.array(rgb, np.uint8), (32, 32, 3))
        write_video(path, iter([flat] * 3), fps=Fraction(25))
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            assert (context.colorspace, context.color_range) == (1, 1)
            assert (context.color_primaries, context.color_trc) == (1, 1)
            luma = (next(container.decode(video=0)).to_ndarray()[9, 9] - 16.0) / 219
        exact = np.dot((0.2126, 0.7152, 0.0722), rgb) / 255
        assert luma == pytest.approx(exact, abs=0.01)
        assert np.abs(next(iter_frames(path)).astype(int) - rgb).max() <= 2


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
@pytest.mark.parametrize("source", ["a.mp4", "a.mkv"])
def test_each_frame_keeps_its_time(tmp_path: Path, source: str, name: str) -> None:
    (tmp_path / "in").mkdir()
    path = encode(tmp_path / "in" / source, FRAMES, milliseconds=IRREGULAR)
    like = inspect_video_file(path)
    write_video(tmp_path / name, iter(FRAMES), like=like)
    written = inspect_video_file(tmp_path / name)
    assert written.times is not None
    assert [1000 * t * written.time_base for t in written.times] == IRREGULAR
    assert psnr(list(iter_frames(tmp_path / name)), FRAMES) > 37


def test_a_file_may_be_replaced_by_its_own_restoration(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", FRAMES, tracks=[Track()])
    like = inspect_video_file(path)
    write_video(path, iter(moving(40, 96, 128)), like=like)
    written = inspect_video_file(path)
    assert (written.frames, written.height, written.has_audio) == (40, 96, True)


def test_a_part_begins_where_the_whole_does(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", FRAMES, milliseconds=[t + 80 for t in IRREGULAR])
    like = inspect_video_file(path)
    assert write_video(tmp_path / "b.mp4", iter(FRAMES[25:]), like=like, start=25) == 15
    written = inspect_video_file(tmp_path / "b.mp4")
    assert written.times is not None
    expected = [t - IRREGULAR[25] + 80 for t in IRREGULAR[25:]]
    assert [1000 * t * written.time_base for t in written.times] == expected


def test_a_video_without_times_keeps_its_rate_or_takes_another(tmp_path: Path) -> None:
    like = inspect_video_file(encode(tmp_path / "a.h264", FRAMES))
    like = replace(like, rate=Fraction(50))
    for given, rate in ((None, 50), (Fraction(24000, 1001), Fraction(24000, 1001))):
        write_video(tmp_path / "b.mp4", iter(FRAMES), like=like, fps=given)
        assert inspect_video_file(tmp_path / "b.mp4").rate == rate
    with pytest.raises(ConfigError, match="nothing says when"):
        write_video(tmp_path / "c.mp4", iter(FRAMES), like=replace(like, rate=None))


def test_what_is_shown_lying_and_of_oblong_pixels_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    encode(path, FRAMES[:5], rotation=(90,), sample_aspect_ratio=Fraction(4, 3))
    like = inspect_video_file(path)
    upright = list(iter_frames(path))
    write_video(tmp_path / "b.mp4", iter(upright), like=like)
    written = inspect_video_file(tmp_path / "b.mp4")
    assert (written.height, written.width, written.pixel_aspect) == (64, 48, Fraction(3, 4))
    assert psnr(list(iter_frames(tmp_path / "b.mp4")), upright) > 37


def test_frames_are_written_as_they_come(tmp_path: Path) -> None:
    sizes = []

    def watched() -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
        for frame in np.random.default_rng(0).integers(0, 256, (240, 48, 64, 3), np.uint8):
            sizes.append(sum(p.stat().st_size for p in tmp_path.iterdir()))
            yield frame

    write_video(tmp_path / "a.mp4", watched(), fps=Fraction(25))
    assert len(sizes) == 240
    assert sizes[-1] > 0.4 * (tmp_path / "a.mp4").stat().st_size


def failing(frames: Frames, error: Exception) -> Iterator[Any]:
    """Yield frames, then fail."""
    yield from frames
    raise error


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_what_fails_on_the_way_leaves_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    like = inspect_video_file(encode(tmp_path / "in/a.mp4", FRAMES, tracks=[Track()]))
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("an older film")
    trouble = DataFormatError("the spikes end early")
    for frames, message in [
        (iter(FRAMES[:39]), r"another number of frames.*got 39, expected 40"),
        (iter([*FRAMES, FRAMES[0]]), r"another number of frames.*got more, expected 40"),
        (iter([]), r"another number of frames.*got 0, expected 40"),
        (iter([*FRAMES[:9], *moving(31, 64, 64)]), r"several sizes.*frame 9\]: got 64x64"),
        (failing(FRAMES[:30], trouble), "the spikes end early"),
        (failing([], trouble), "the spikes end early"),
    ]:
        with pytest.raises(DataFormatError, match=message):
            write_video(out / name, frames, like=like)
        assert (out / name).read_text() == "an older film"
        assert [p.name for p in out.iterdir()] == [name]
    with pytest.raises(KeyboardInterrupt):
        write_video(out / name, (_interrupt() for _ in FRAMES), like=like)
    with pytest.raises(DataFormatError, match=r"got 0, expected one or more"):
        write_video(out / name, iter([]), fps=Fraction(25))
    assert [p.name for p in out.iterdir()] == [name]


def _interrupt() -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("limit", [1, 3000, 30_000])
def test_a_full_disk_leaves_nothing(tmp_path: Path, name: str, limit: int) -> None:
    (tmp_path / "in").mkdir()
    like = inspect_video_file(encode(tmp_path / "in/a.mp4", FRAMES, tracks=[Track()]))
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), np.uint8)
    (tmp_path / "out").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(DataFormatError, match=f"cannot write the file: File too.*{name}"):
            write_video(tmp_path / "out" / name, iter(noise), like=like)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "out").iterdir())


def test_what_the_encoder_refuses_is_one_error(tmp_path: Path) -> None:
    wide = np.zeros((2, 20_000, 3), np.uint8)
    with pytest.raises(DataFormatError, match=r"cannot write the file: .*a\.mp4"):
        write_video(tmp_path / "a.mp4", iter([wide] * 2), fps=Fraction(25))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    like = inspect_video_file(encode(tmp_path / "in.mp4", FRAMES))
    (tmp_path / "folder.mp4").mkdir()
    for name, message in [
        ("a.webm", r"the suffix names no video.*got \.webm, expected \.mp4, \.mov, \.mkv"),
        ("a", r"the suffix names no video.*got no suffix"),
        ("folder.mp4", "a folder has this name"),
        ("in.mp4/a.mp4", "this is no folder"),
    ]:
        for refuse in (
            check_video_target,
            lambda path: write_video(path, iter(FRAMES), fps=Fraction(25)),
        ):
            with pytest.raises(ConfigError, match=message):
                refuse(tmp_path / name)
    check_video_target(tmp_path / "new" / "a.MKV")
    with pytest.raises(DataFormatError, match="make the folder first"):
        write_video(tmp_path / "new" / "a.mkv", iter(FRAMES), fps=Fraction(25))
    given: dict[str, Any]
    for given, message in [
        ({}, "nothing says when the frames are shown"),
        ({"fps": Fraction(0)}, "nothing says when.*got 0 frames a second"),
        ({"fps": Fraction(-1)}, "nothing says when"),
        ({"fps": Fraction(25), "start": 1}, "nothing says when"),
        ({"fps": Fraction(25), "like": like}, "keep the times of their video.*got 25 frames"),
        ({"like": like, "start": 40}, "first frame is none.*got 40, expected 0 to 39"),
        ({"like": like, "start": -1}, "first frame is none.*got -1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            write_video(tmp_path / "a.mp4", iter(FRAMES), **given)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.mp4", "in.mp4"]


@pytest.mark.parametrize("source", ["a.mp4", "a.ts"])
def test_without_libx264_it_is_mpeg4(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which the clock is too coarse for that of a transport stream."""
    like = inspect_video_file(encode(tmp_path / source, FRAMES))
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    for name in ("b.mp4", "b.mkv"):
        write_video(tmp_path / name, iter(moving(40, 47, 63)), like=like)
        with av.open(str(tmp_path / name)) as container:
            assert container.streams.video[0].codec_context.name == "mpeg4"
        written = inspect_video_file(tmp_path / name)
        assert written.times is not None
        steps = np.diff(written.times) * float(written.time_base)
        np.testing.assert_allclose(steps, 0.04, atol=1e-3)
        assert psnr(list(iter_frames(tmp_path / name)), moving(40, 47, 63)) > 33


def test_a_real_video_loses_nothing_that_eyes_see(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "bikes.mp4"
    like = inspect_video_file(source)
    frames = list(islice(iter_frames(source, 200), 50))
    write_video(tmp_path / "a.mp4", iter(frames), like=like, start=200)
    assert psnr(list(iter_frames(tmp_path / "a.mp4")), frames) > 42
