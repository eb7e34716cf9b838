"""Video files: what is in them is found once and exactly, and what is damaged is refused."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.video.video_files import Track, encode, moving
from vrtspike.errors import DataFormatError
from vrtspike.video.inspect import VIDEO_SUFFIXES, declared_rate, inspect_video_file, iter_frames

FRAMES = moving(40)
GROUPS = {"g": "12", "bf": "3"}


def test_what_is_found_is_what_was_encoded(tmp_path: Path) -> None:
    path = encode(tmp_path / "a film é.mp4", FRAMES, options=GROUPS, tracks=[Track()])
    info = inspect_video_file(path)
    assert (info.path, info.frames, info.height, info.width) == (path, 40, 48, 64)
    assert info.times is not None
    assert [t * info.time_base for t in info.times] == [Fraction(n, 25) for n in range(40)]
    assert (info.rate, info.has_audio, info.pixel_aspect, info.begin) == (25, True, 1, 0)
    with av.open(str(path)) as container:
        keys = sorted(p.pts for p in container.demux(video=0) if p.is_keyframe and p.size)
    assert [info.times[n] for n in info.keyframes] == keys
    assert len(keys) == 4
    assert declared_rate(path) == 25
    decoded = list(iter_frames(path))
    assert len(decoded) == 40
    assert np.abs(np.stack(decoded).astype(float) - np.stack(FRAMES)).mean() < 8
    np.testing.assert_array_equal(list(iter_frames(path, 31)), decoded[31:])


def test_variable_times_are_found(tmp_path: Path) -> None:
    times = [7 * n + 11 * (n % 3) + 90 * (n > 20) for n in range(40)]
    times = sorted(set(times))[:30]
    for name in ("a.mp4", "a.mkv"):
        path = encode(tmp_path / name, FRAMES[:30], options=GROUPS, milliseconds=times)
        info = inspect_video_file(path)
        assert info.times is not None
        assert [1000 * t * info.time_base for t in info.times] == times
        assert not info.has_audio


def test_a_bare_stream_has_no_times(tmp_path: Path) -> None:
    info = inspect_video_file(encode(tmp_path / "a.h264", FRAMES, options=GROUPS))
    assert (info.frames, info.times) == (40, None)


def test_a_transport_stream_says_when_it_begins(tmp_path: Path) -> None:
    info = inspect_video_file(encode(tmp_path / "a.ts", FRAMES, tracks=[Track()]))
    assert info.times is not None
    assert info.times[0] * info.time_base > info.begin > 0


def test_pixels_that_are_not_square_say_so(tmp_path: Path) -> None:
    for rotation, aspect in ((None, Fraction(4, 3)), ((90,), Fraction(3, 4))):
        given: dict[str, Any] = {"sample_aspect_ratio": Fraction(4, 3), "rotation": rotation}
        path = encode(tmp_path / "a.mp4", moving(3, 48, 48), **given)
        assert inspect_video_file(path).pixel_aspect == aspect


QUARTERS = np.zeros((32, 48, 3), np.uint8)
QUARTERS[:16, :24], QUARTERS[:16, 24:], QUARTERS[16:, :24] = (250, 9, 9), (9, 250, 9), (9, 9, 250)


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_frames_are_turned_and_mirrored_as_players_show_them(
    tmp_path: Path, turns: int, columns: bool, rows: bool
) -> None:
    path = encode(
        tmp_path / "a.mp4",
        [QUARTERS] * 3,
        pix_fmt="yuv444p",
        rotation=(90 * turns, columns, rows),
    )
    shown = np.rot90(QUARTERS, turns)
    shown = shown[:: -1 if rows else 1, :: -1 if columns else 1]
    info = inspect_video_file(path)
    assert (info.height, info.width) == shown.shape[:2]
    for frame in iter_frames(path):
        assert np.abs(frame[4::8, 4::8].astype(int) - shown[4::8, 4::8]).max() < 40


@pytest.mark.parametrize("limited", [True, False])
@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("rgb", [(255, 255, 255), (0, 0, 0), (200, 40, 40), (30, 60, 220)])
def test_colours_follow_the_matrix_and_range_of_the_file(
    tmp_path: Path, rgb: tuple[int, int, int], matrix: int, limited: bool
) -> None:
    flat = np.broadcast_to(np.array(rgb, np.uint8), (32, 32, 3)).copy()
    options = {"crf": "1"}
    path = encode(
        tmp_path / "a.mp4", [flat] * 2, options=options, colour=(matrix, 1 if limited else 2)
    )
    for frame in iter_frames(path):
        assert np.abs(frame.astype(int) - rgb).max() <= 3
        assert frame.flags.c_contiguous


def test_unstated_colours_are_bt601_of_limited_range(tmp_path: Path) -> None:
    yuv = np.full((48, 32), 128, np.uint8)
    yuv[:32], yuv[40:] = 81, 240
    yuv[32:40] = 90
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        video: Any = container.add_stream("ffv1", rate=25)
        video.height, video.width, video.pix_fmt = 32, 32, "yuv420p"
        container.mux(video.encode(av.VideoFrame.from_ndarray(yuv, format="yuv420p")))
        container.mux(video.encode())
    frame = next(iter_frames(tmp_path / "a.mkv"))
    assert np.abs(frame.astype(int) - (255, 0, 0)).max() <= 2, "red, in BT.601"


def cut(share: float) -> Callable[[bytes], bytes]:
    """Return what leaves the first part of a file."""
    return lambda content: content[: int(len(content) * share)]


def scratched(content: bytes) -> bytes:
    """Overwrite a part of the pictures."""
    at = len(content) // 3
    return content[:at] + np.random.default_rng(0).bytes(200) + content[at + 200 :]


PLAIN, FAST = ("a.mp4", ""), ("a.mp4", "faststart")
FRAGMENTS, MATROSKA = ("a.mp4", "frag_keyframe+empty_moov"), ("a.mkv", "")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        *(
            (kind, cut(share))
            for kind in (PLAIN, FAST, FRAGMENTS, MATROSKA)
            for share in (0.5, 0.8)
        ),
        *((kind, cut(0.97)) for kind in (PLAIN, FAST, FRAGMENTS)),
        *((kind, scratched) for kind in (PLAIN, FAST)),
    ],
)
def test_damaged_files_are_one_error_that_names_them(
    tmp_path: Path, kind: tuple[str, str], change: Callable[[bytes], bytes]
) -> None:
    muxing = {"movflags": kind[1]} if kind[1] else {}
    path = encode(tmp_path / kind[0], moving(90), options={"g": "30"}, muxing=muxing)
    assert inspect_video_file(path).frames == 90
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataFormatError, match=r"damaged|cannot be decoded|no video") as caught:
        inspect_video_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def silence() -> av.AudioFrame:
    """Return a second of sound of which nothing is heard."""
    samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
    samples.sample_rate = 8000
    return samples


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video\n" * 40)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "folder.mp4").mkdir()
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        sound: Any = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        container.mux(sound.encode(silence()))
        container.mux(sound.encode())
    for name, message in [
        ("text.mp4", r"cannot be decoded.*got.*expected a video file"),
        ("empty.mp4", "cannot be decoded"),
        ("folder.mp4", r"cannot be decoded.*directory"),
        ("none.mp4", "no such video"),
        ("sound.mkv", "holds no video"),
    ]:
        with pytest.raises(DataFormatError, match=message) as caught:
            inspect_video_file(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound: Any = container.add_stream("aac", rate=8000, layout="mono")
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(FRAMES[0], format="rgb24")))
        container.mux(sound.encode(silence()))
        container.mux(sound.encode())
    with pytest.raises(DataFormatError, match="holds no video"):
        inspect_video_file(path)


def test_sizes_that_change_are_refused(tmp_path: Path) -> None:
    for name, frames in (("a.h264", FRAMES[:5]), ("b.h264", moving(5, 64, 64))):
        encode(tmp_path / name, frames)
    both = (tmp_path / "a.h264").read_bytes() + (tmp_path / "b.h264").read_bytes()
    (tmp_path / "c.h264").write_bytes(both)
    for read in (inspect_video_file, lambda path: list(iter_frames(path))):
        with pytest.raises(
            DataFormatError, match=r"changes its size .*frame 5\]: got 64x64, expected 48x64"
        ):
            read(tmp_path / "c.h264")


@pytest.mark.parametrize(("number", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_refused(tmp_path: Path, number: int, name: str) -> None:
    path = encode(tmp_path / "a.mp4", FRAMES[:3], color_trc=number)
    with pytest.raises(DataFormatError, match=f"high dynamic range.*got {name}.*Fix: convert"):
        inspect_video_file(path)


def test_odd_angles_are_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", FRAMES[:3], rotation=(30,))
    with pytest.raises(DataFormatError, match=r"multiple of 90 degrees.*got 30 degrees"):
        inspect_video_file(path)


def test_many_threads_decode_what_one_does(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", FRAMES, options=GROUPS)
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        alone: list[NDArray[Any]] = [
            f.to_ndarray(format="rgb24") for f in container.decode(video=0)
        ]
    np.testing.assert_array_equal(list(iter_frames(path)), alone)


def test_suffixes_are_lower_case() -> None:
    assert {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts"} <= set(
        VIDEO_SUFFIXES
    )
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in VIDEO_SUFFIXES)


def test_a_real_video_is_whole(shared: Path) -> None:
    info = inspect_video_file(shared / "data" / "bikes.mp4")
    assert (info.frames, info.height, info.width, info.rate) == (250, 272, 640, 25)
    assert info.times == tuple(range(0, 250 * 512, 512))
    assert info.time_base == Fraction(1, 12800)
    assert not info.has_audio


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile 'victim.mp4'\n",
    "concat without a head": "file victim.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nvictim.ts\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>'
    "victim.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "session": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "metadata": ";FFMETADATA1\ntitle=victim.mp4\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ffconcat", ".mpd", ".sdp"])
def test_a_list_of_other_files_is_no_video(name: str, suffix: str, tmp_path: Path) -> None:
    for victim in ("victim.mp4", "victim.ts"):
        encode(tmp_path / victim, moving(3))
    file = tmp_path / f"list{suffix}"
    file.write_text(PLAYLISTS[name])
    for read in (inspect_video_file, declared_rate, lambda path: list(iter_frames(path))):
        with pytest.raises(DataFormatError, match=r"list\.") as caught:
            read(file)
        assert "\n" not in str(caught.value) and "file:" not in str(caught.value)


def test_a_video_that_names_its_data_elsewhere_shows_no_other_file(tmp_path: Path) -> None:
    content = bytearray(encode(tmp_path / "victim.mov", moving(3)).read_bytes())
    # A `url ` entry whose flag says "not in this file" has the name of the file that it is in.
    place = content.index(b"\0\0\0\x0curl \0\0\0\x01")
    content[place + 11] = 0
    (tmp_path / "thief.mov").write_bytes(content)
    inside = inspect_video_file(tmp_path / "thief.mov")
    assert inside.frames == 3, "what the file itself holds, at most"


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_every_promised_suffix_is_read(suffix: str, tmp_path: Path) -> None:
    other = {".webm": "libvpx-vp9", ".ogv": "libtheora", ".wmv": "wmv2", ".flv": "flv"}
    codec = other.get(suffix, "mpeg2video" if suffix in (".mpg", ".mpeg") else "libx264")
    if codec not in av.codecs_available:
        pytest.skip(f"FFmpeg was built without {codec}")
    kin = {".m2ts": ".ts", ".mts": ".ts", ".m4v": ".mp4"}.get(suffix, suffix)
    file = encode(tmp_path / f"a{kin}", moving(3), codec).rename(tmp_path / f"b{suffix}")
    assert inspect_video_file(file).frames == 3


def test_a_colon_in_a_name_is_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("12:30:15.mp4", "concat:a.mp4", "http:x.mp4", "file:y.mp4", "a%d.mp4"):
        encode(tmp_path / name, moving(2))
        assert inspect_video_file(Path(name)).frames == 2


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi", ".ts"])
def test_a_bit_that_turned_is_refused_or_does_not_matter(suffix: str, tmp_path: Path) -> None:
    content = encode(tmp_path / f"a{suffix}", moving(2)).read_bytes()
    file, draw = tmp_path / f"b{suffix}", np.random.default_rng(5)
    # Boxes and headers lie at both ends.
    ends = [*range(30), *range(len(content) - 30, len(content))]
    for place in [*ends, *draw.integers(0, len(content), 60)]:
        turned = bytearray(content)
        turned[place] ^= 1 << int(draw.integers(8))
        file.write_bytes(turned)
        try:
            inspect_video_file(file)
        except DataFormatError as error:
            assert str(file) in str(error) and "\n" not in str(error)


def test_a_title_need_not_be_utf8(tmp_path: Path) -> None:
    file = encode(tmp_path / "a.mp4", moving(2))
    content = file.read_bytes()
    assert b"VideoHandler" in content
    file.write_bytes(content.replace(b"VideoHandler", b"Video\xe4andler"))
    assert inspect_video_file(file).frames == 2
