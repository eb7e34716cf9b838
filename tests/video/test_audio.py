"""The sound of a video goes with its frames: packet by packet, in sync, in every container."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from tests.video.video_files import Track, encode, heard, moving, packets, tone
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.video.inspect import VideoInfo, inspect_video_file
from vrtspike.video.write import write_video

FRAMES = moving(40)


def first_picture(path: Path) -> Fraction:
    """Return when a file's first frame is shown, in seconds."""
    info = inspect_video_file(path)
    assert info.times is not None
    return info.times[0] * info.time_base


def source(folder: Path, name: str, *tracks: Track) -> VideoInfo:
    """Return a video with sound."""
    (folder / "in").mkdir()
    return inspect_video_file(encode(folder / "in" / name, FRAMES, tracks=tracks))


@pytest.mark.parametrize("name", ["b.mp4", "b.mov", "b.mkv"])
@pytest.mark.parametrize("offset", [0.0, 0.25])
@pytest.mark.parametrize("codec", ["aac", "ac3"])
def test_packets_are_copied_as_they_are(
    tmp_path: Path, codec: str, offset: float, name: str
) -> None:
    like = source(tmp_path, "a.mp4", Track(codec, offset=offset))
    write_video(tmp_path / name, iter(FRAMES), like=like)
    before, after = packets(like.path), packets(tmp_path / name)
    assert len(before) > 40
    assert [content for _, content in after] == [content for _, content in before]
    lead = [before[0][0] - first_picture(like.path), after[0][0] - first_picture(tmp_path / name)]
    assert abs(lead[0] - lead[1]) <= Fraction(1, 1000), "the clock of .mkv counts milliseconds"
    gaps = [[b - a for (a, _), (b, _) in pairwise(p)] for p in (before, after)]
    np.testing.assert_allclose(*(np.array(g, float) for g in gaps), atol=0.0011)


@pytest.mark.parametrize(
    ("codec", "name", "copied"),
    [
        ("libopus", "b.mp4", True),
        ("libopus", "b.mkv", True),
        ("libopus", "b.mov", False),
        ("flac", "b.mkv", True),
        ("flac", "b.mov", False),
        ("pcm_s16le", "b.mov", True),
        ("pcm_s16le", "b.mp4", False),
        ("wavpack", "b.mp4", False),
    ],
)
def test_what_a_container_does_not_hold_is_encoded_anew(
    tmp_path: Path, codec: str, name: str, copied: bool
) -> None:
    like = source(tmp_path, "a.mkv", Track(codec))
    write_video(tmp_path / name, iter(FRAMES), like=like)
    same = [p for _, p in packets(tmp_path / name)] == [p for _, p in packets(like.path)]
    assert same == copied
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.audio[0].codec_context.name == (
            codec.removeprefix("lib") if copied else "aac"
        )
    begin, samples = heard(tmp_path / name)
    at = round((begin - float(first_picture(tmp_path / name))) * 48_000)
    truth = tone(48_000, 1.6)
    assert abs(at) < 400
    assert len(samples) == pytest.approx(len(truth), abs=1500)
    part = slice(10_000, 60_000)
    shifts = range(-360, 361, 4)
    fits = [
        np.mean((samples[part] - truth[part.start + at + s : part.stop + at + s]) ** 2)
        for s in shifts
    ]
    assert min(fits) < 1e-3
    assert abs(shifts[int(np.argmin(fits))]) <= 48 * 7, "Opus in .mp4 may start 7 ms off"


def test_several_tracks_keep_their_order_and_languages(tmp_path: Path) -> None:
    tracks = [Track(language="deu"), Track("ac3", language="fra", offset=0.1), Track("flac")]
    like = source(tmp_path, "a.mkv", *tracks)
    write_video(tmp_path / "b.mkv", iter(FRAMES), like=like)
    with av.open(str(tmp_path / "b.mkv")) as container:
        found = [(s.codec_context.name, s.language) for s in container.streams.audio]
    assert found == [("aac", "deu"), ("ac3", "fra"), ("flac", "deu")]
    for number in range(3):
        before, after = packets(like.path, number), packets(tmp_path / "b.mkv", number)
        assert [content for _, content in after] == [content for _, content in before]


def test_unnamed_channels_and_rare_rates_are_encoded(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.avi"
    tracks = [Track("adpcm_ima_wav", rate=10_000, layout="mono")]
    like = inspect_video_file(encode(path, FRAMES, "mpeg4", tracks=tracks))
    write_video(tmp_path / "b.mp4", iter(FRAMES), like=like)
    begin, samples = heard(tmp_path / "b.mp4")
    assert begin == 0
    assert len(samples) / 11025 == pytest.approx(1.6, abs=0.2)


def test_a_transport_stream_begins_at_0_in_sync(tmp_path: Path) -> None:
    like = source(tmp_path, "a.ts", Track(offset=0.2))
    for name in ("b.mp4", "b.mkv"):
        write_video(tmp_path / name, iter(FRAMES), like=like)
        lead = packets(like.path)[0][0] - first_picture(like.path)
        begin = first_picture(tmp_path / name)
        assert packets(tmp_path / name)[0][0] - begin == pytest.approx(lead, abs=0.001)
        assert begin == pytest.approx(float(first_picture(like.path) - like.begin), abs=0.001)


@pytest.mark.parametrize("name", ["b.mov", "b.mp4", "b.mkv"])
def test_a_part_has_the_sound_of_its_frames(tmp_path: Path, name: str) -> None:
    like = source(tmp_path, "a.mkv", Track("pcm_s16le"))
    write_video(tmp_path / name, iter(FRAMES[20:]), like=like, start=20)
    begin, samples = heard(tmp_path / name)
    shown = float(first_picture(tmp_path / name))
    assert 0 <= shown < 0.03
    assert abs(begin - shown) < 0.03
    at = round((0.8 + begin - shown) * 48_000)
    truth = tone(48_000, 1.6)[at : at + 20_000]
    part = slice(4_000, 16_000)
    fits = [
        np.mean((samples[part.start + s : part.stop + s] - truth[part]) ** 2)
        for s in range(-60, 61)
    ]
    assert min(fits) < 1e-3
    assert abs(int(np.argmin(fits)) - 60) <= 48, "a millisecond: the clock of the original"
    assert len(samples) == pytest.approx(48_000 * 0.8, abs=2100)


def test_sound_and_pictures_lie_side_by_side(tmp_path: Path) -> None:
    """So that a player needs not read far ahead; memory would grow with what does."""
    frames = moving(40) * 8
    (tmp_path / "in").mkdir()
    path = encode(tmp_path / "in/a.mp4", frames, tracks=[Track(seconds=12.8)])
    write_video(tmp_path / "b.mp4", iter(frames), like=inspect_video_file(path))
    reached = {"video": 0.0, "audio": 0.0}
    with av.open(str(tmp_path / "b.mp4")) as container:
        found = [p for p in container.demux() if p.size and p.pos is not None]
        for packet in sorted(found, key=lambda p: p.pos or 0):
            assert packet.dts is not None
            reached[packet.stream.type] = float(packet.dts * packet.time_base)
            assert abs(reached["video"] - reached["audio"]) < 0.3


def test_sound_that_cannot_be_encoded_is_refused(tmp_path: Path) -> None:
    like = source(tmp_path, "a.mkv", Track("pcm_s16le", layout="hexadecagonal"))
    with pytest.raises(ConfigError, match=r"does not hold the video's sound.*Fix: write a \.mkv"):
        write_video(tmp_path / "b.mp4", iter(FRAMES), like=like)
    write_video(tmp_path / "b.mkv", iter(FRAMES), like=like)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["b.mkv"]


def test_a_source_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    like = source(tmp_path, "a.mkv", Track())
    like.path.unlink()
    with pytest.raises(DataFormatError, match=r"no such video.*a\.mkv"):
        write_video(tmp_path / "b.mkv", iter(FRAMES), like=like)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_the_sound_of_joined_files_follows_on(tmp_path: Path) -> None:
    one = encode(tmp_path / "a.ts", FRAMES, tracks=[Track()]).read_bytes()
    (tmp_path / "b.ts").write_bytes(one + one)
    like = inspect_video_file(tmp_path / "b.ts")
    assert like.times is None, "they go back to the start"
    write_video(tmp_path / "c.mp4", iter([*FRAMES, *FRAMES]), like=like)
    alone, joined = packets(tmp_path / "a.ts"), packets(tmp_path / "c.mp4")
    adts = 7  # bytes of the header that a transport stream gives each packet of AAC
    assert [content for _, content in joined] == 2 * [content[adts:] for _, content in alone]
    steps = [b - a for (a, _), (b, _) in pairwise(joined)]
    assert min(steps) > 0 and max(steps) <= 2 * min(steps)
