"""Videos as other programs write them: unknown side data, joined streams, interlaced frames."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type

from tests.video.video_files import encode, moving
from vrtspike.errors import DataFormatError
from vrtspike.video.inspect import inspect_video_file, iter_frames
from vrtspike.video.transport_stream import LENGTH

CODECS = {"libx264": {"g": "30"}, "libx265": {"x265-params": "log-level=none"}}
VIDEO_PID = 256


def test_side_data_of_any_kind_have_a_name() -> None:
    assert Type(9999).value == 9999
    assert Type.DISPLAYMATRIX is Type(Type.DISPLAYMATRIX.value)


def test_exif_in_a_video_is_passed_over(shared: Path) -> None:
    folder = shared / "data/faults/00_side_data"
    if not folder.is_dir():
        pytest.skip("no shared/data/faults")
    frames = [list(iter_frames(folder / name)) for name in ("mj_exif.avi", "mj_exif.mov")]
    assert [len(found) for found in frames] == [10, 10]
    assert inspect_video_file(folder / "mj_exif.mov").frames == 10


@pytest.mark.parametrize("codec", CODECS)
def test_joined_transport_streams_are_whole(codec: str, tmp_path: Path) -> None:
    one = encode(tmp_path / "a.ts", moving(20), codec, options=CODECS[codec]).read_bytes()
    (tmp_path / "b.ts").write_bytes(one + one)
    assert inspect_video_file(tmp_path / "b.ts").frames == 40
    first = list(iter_frames(tmp_path / "a.ts"))
    np.testing.assert_array_equal(list(iter_frames(tmp_path / "b.ts")), first + first)


def test_a_lost_packet_of_a_transport_stream_is_damage(tmp_path: Path) -> None:
    content = encode(tmp_path / "a.ts", moving(60), options={"g": "30"}).read_bytes()
    packets = [content[at : at + LENGTH] for at in range(0, len(content), LENGTH)]
    own = [n for n, p in enumerate(packets) if (p[1] & 0x1F) << 8 | p[2] == VIDEO_PID]
    # Behind the last picture before a key frame there may be a join.
    starts = [n for n in own if packets[n][3] & 0x20 and packets[n][5] & 0x40]
    inside = [n for n, after in pairwise(own) if after not in starts]
    for lost in inside[5:-8:9]:
        (tmp_path / "b.ts").write_bytes(b"".join(packets[:lost] + packets[lost + 1 :]))
        with pytest.raises(DataFormatError, match="damaged"):
            inspect_video_file(tmp_path / "b.ts")


def test_the_shared_joined_streams(shared: Path) -> None:
    folder = shared / "data/faults/08_ts_joined"
    if not folder.is_dir():
        pytest.skip("no shared/data/faults")
    assert inspect_video_file(folder / "ab.ts").frames == 20
    assert inspect_video_file(folder / "hls.ts").frames == 30


def test_interlaced_video_is_refused(tmp_path: Path) -> None:
    fields = {"flags": "+ildct+ilme"}
    path = encode(tmp_path / "a.mkv", moving(12), "mpeg2video", options=fields)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    for read in (inspect_video_file, lambda path: list(iter_frames(path))):
        with pytest.raises(DataFormatError, match=r"interlaced.*Fix: deinterlace it"):
            read(path)


def test_a_colon_in_a_relative_name_is_no_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(tmp_path / "a.mp4", moving(6)).rename(tmp_path / "12:30:15.mp4")
    monkeypatch.chdir(tmp_path)
    assert inspect_video_file(Path("12:30:15.mp4")).frames == 6
    assert len(list(iter_frames(Path("12:30:15.mp4")))) == 6
