"""What is done stays done, what was half done does not count, and what is gone is noticed."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.inference.clip_files import everything
from vrtspike.errors import DataFormatError, ResourceError
from vrtspike.inference.spool import Spool, _sum_of
from vrtspike.inference.tiling import cover

NAMES = tuple("abcdefg")
WINDOWS = cover(7, 4, 2)
"""[0, 4), [1, 5), [3, 7): frame 3 is in all of them."""
FACTS = {"frames": 1, "seconds": 1.0, "tile": None, "memory": 1}
TAKEN = ResourceError("taken")
HOLD = """
import sys
from pathlib import Path
from vrtspike.lock import locked
with locked(Path(sys.argv[1]), Exception("taken")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool", NAMES)
    with spool.begun({"weights": "w"}, TAKEN):
        pass
    return spool


def gray(level: float) -> Tensor:
    return torch.full((3, 4, 6), level)


def levels(spool: Spool, frame: int) -> set[int]:
    return set(np.unique(np.asarray(Image.open(spool.image(frame)))))


def test_frames_come_back_rounded_and_clipped(spool: Spool) -> None:
    values = torch.linspace(-0.2, 1.2, 3 * 4 * 6).reshape(3, 4, 6)
    spool.write_frame(2, values)
    found = np.asarray(Image.open(spool.frames / "c.png"))
    expected = (values.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    np.testing.assert_array_equal(found, expected)
    assert [file.name for file in spool.frames.iterdir()] == ["c.png"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_shares_are_added_up_after_the_last_of_them(spool: Spool, order: tuple[int, ...]) -> None:
    shares = {0: 0.5, 1: 0.25, 2: 0.125}
    for number in order:
        assert not spool.image(3).exists()
        spool.write_share(3, number, gray(shares[number]))
        spool.add_up(WINDOWS, spool.segments())
        assert not spool.image(3).exists(), "written, but not yet noted as done"
        spool.mark_done(number, number + 1, FACTS)
        spool.add_up(WINDOWS, spool.segments())
    assert levels(spool, 3) == {round(0.875 * 255)}
    assert not list(spool.folder.glob("part-*"))


def test_a_frame_waits_for_the_windows_that_hold_it_alone(spool: Spool) -> None:
    for number in (0, 1):
        spool.write_share(1, number, gray(0.5))
        spool.mark_done(number, number + 1, FACTS)
    spool.add_up(WINDOWS, spool.segments())
    assert levels(spool, 1) == {255}


def test_windows_that_are_open_are_those_that_no_segment_did(spool: Spool) -> None:
    assert spool.open_windows(7) == [range(7)]
    for first, stop in ((2, 4), (6, 7), (4, 5)):
        spool.mark_done(first, stop, FACTS)
    assert spool.open_windows(7) == [range(0, 2), range(5, 6)]
    assert [facts["first"] for facts in spool.done()] == [2, 4, 6]
    (spool.folder / "done-4-5.json").write_bytes(b"")
    assert spool.open_windows(7) == [range(0, 2), range(4, 6)], "an empty note is none"


def test_the_same_identity_goes_on_and_another_starts_anew(spool: Spool) -> None:
    spool.write_frame(0, gray(0.5))
    spool.write_share(3, 0, gray(0.5))
    spool.mark_done(0, 1, FACTS)
    assert spool.failure is None
    spool.fail(DataFormatError("spoilt", where=Path("a.png")))
    assert isinstance(spool.failure, DataFormatError) and str(spool.failure) == "spoilt [a.png]"
    before = everything(spool.folder)
    with spool.begun({"weights": "w"}, TAKEN):
        assert spool.failure is None
    assert set(before) - set(everything(spool.folder)) == {"failed"}
    with spool.begun({"weights": "v"}, TAKEN):
        assert set(everything(spool.folder)) == {"identity.json", "lock"}
        assert spool.frames.is_dir()


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("exploded"),)


def test_a_pickle_that_somebody_put_there_runs_nothing(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (pickle.dumps(Bomb()), b"", b"spoilt", b"\xff", b"[" * 10_000):
        (spool.folder / "failed").write_bytes(content)
        failure = spool.failure
        assert isinstance(failure, DataFormatError), "no more is done for this clip"
        assert "note of the restoration is damaged" in str(failure)
    assert not (tmp_path / "exploded").exists()
    with spool.begun({"weights": "w"}, TAKEN):
        assert spool.failure is None


def test_files_that_were_being_written_are_dropped(spool: Spool) -> None:
    (spool.frames / ".vrtspike-x").write_bytes(b"half")
    (spool.folder / ".vrtspike-y").write_bytes(b"half")
    with spool.begun({"weights": "w"}, TAKEN):
        assert set(everything(spool.folder)) == {"identity.json", "lock"}


def test_shares_of_a_segment_that_was_stopped_are_dropped(spool: Spool) -> None:
    spool.write_share(3, 0, gray(0.5))
    spool.write_share(3, 1, gray(0.25))
    spool.mark_done(1, 2, FACTS)
    with spool.begun({"weights": "w"}, TAKEN):
        assert [file.name for file in spool.folder.glob("part-*")] == ["part-3-1.npy"]


def test_a_stop_between_adding_up_and_deleting_changes_nothing(spool: Spool) -> None:
    for number in range(3):
        spool.write_share(3, number, gray(0.25))
        spool.mark_done(number, number + 1, FACTS)
    kept = (spool.folder / "part-3-2.npy").read_bytes()
    spool.add_up(WINDOWS, spool.segments())
    (spool.folder / "part-3-2.npy").write_bytes(kept)
    spool.add_up(WINDOWS, spool.segments())
    assert levels(spool, 3) == {round(0.75 * 255)}
    assert not list(spool.folder.glob("part-*"))


def test_shares_that_are_gone_or_damaged_are_noticed(spool: Spool) -> None:
    for number in range(3):
        spool.write_share(3, number, gray(0.25))
        spool.mark_done(number, number + 1, FACTS)
    share = spool.folder / "part-3-1.npy"
    content = share.read_bytes()
    turned = bytearray(content)
    turned[len(turned) // 2] ^= 1
    for damaged in (b"", content[:-40], b"spoilt" * 9, bytes(turned), content + b"x"):
        share.write_bytes(damaged)
        with pytest.raises(DataFormatError, match=r"are gone.*share that is damaged"):
            spool.add_up(WINDOWS, spool.segments())
    share.unlink()
    with pytest.raises(DataFormatError, match=r"are gone.*2 of 3 shares of frame 3"):
        spool.add_up(WINDOWS, spool.segments())
    assert not spool.image(3).exists()


def test_frames_that_are_gone_or_cut_off_are_noticed(spool: Spool) -> None:
    for frame in range(7):
        spool.write_frame(frame, gray(0.5))
    spool.check_whole()
    content = spool.image(4).read_bytes()
    for damaged in (b"", content[:-1], content[: len(content) // 2]):
        spool.image(4).write_bytes(damaged)
        with pytest.raises(DataFormatError, match="1 of 7 missing or cut off, first e"):
            spool.check_whole()
    spool.image(1).unlink()
    with pytest.raises(DataFormatError, match="2 of 7 missing or cut off, first b"):
        spool.check_whole()


def test_one_process_holds_it_at_a_time(spool: Spool) -> None:
    before = everything(spool.folder)
    # The lock is the system's: it ends with its process, however that ends.
    holding = subprocess.Popen(
        [sys.executable, "-c", HOLD, spool.folder / "lock"], stdin=PIPE, stdout=PIPE, text=True
    )
    with holding:
        assert holding.stdout is not None and holding.stdout.readline() == "held\n"
        with pytest.raises(ResourceError, match="taken"), spool.begun({"weights": "v"}, TAKEN):
            pytest.fail("held twice")
        holding.kill()
    assert set(everything(spool.folder)) == set(before)
    with spool.begun({"weights": "w"}, TAKEN):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spool = Spool(tmp_path / "file" / "spool", NAMES)
    with pytest.raises(ResourceError, match="cannot write beside"), spool.begun({}, TAKEN):
        pass


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every writing of pixels fail as on a full disk."""

    def write(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", write)
        patch.setattr(Path, "write_bytes", write)
        yield


def test_a_full_disk_leaves_no_half_of_anything(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(spool.folder)
    with full_disk(monkeypatch):
        with pytest.raises(DataFormatError, match=r"No space left.*a\.png.*free space"):
            spool.write_frame(0, gray(0.5))
        with pytest.raises(DataFormatError, match=r"No space left.*part-3-0"):
            spool.write_share(3, 0, gray(0.5))
    assert everything(spool.folder) == before


def test_workers_may_die_of_a_segment_some_times(spool: Spool) -> None:
    for _ in range(2):
        for _ in range(3):
            spool.note_attempt(4, 3)
        spool.note_attempt(5, 3)
        with pytest.raises(ResourceError, match=r"workers die of this clip.*3 attempts"):
            spool.note_attempt(4, 3)
        # Another start is another chance.
        with spool.begun({"weights": "w"}, TAKEN):
            pass


def test_what_is_noted_is_plain_json(spool: Spool) -> None:
    spool.mark_done(0, 2, FACTS)
    (file,) = spool.folder.glob("done-*")
    noted = json.loads(file.read_text())
    assert noted.pop("sum") and noted == {**FACTS, "first": 0, "stop": 2}
    spool.remove()
    assert not spool.folder.exists()


NOTES = {
    "empty": b"",
    "no JSON": b"spoilt",
    "a list": b"[]",
    "nothing": b"{}",
    "deep": b"[" * 20_000,
    "not UTF-8": b"\xff\xfe",
}


def noted(first: int, stop: int, **changes: object) -> bytes:
    """Return a note of our form, whose sum is right, with some facts that are wrong."""
    facts = {**FACTS, "first": first, "stop": stop} | changes
    return json.dumps({**facts, "sum": _sum_of(facts)}).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("done-0-2.json", content) for content in NOTES.values()),
        ("done-0-2.json", noted(0, 3)),
        ("done-0-2.json", noted(0, 2, seconds="long")),
        ("done-0-2.json", noted(0, 2, memory=None)),
        ("done-0-2.json", noted(0, 2).replace(b"1.0", b"2.0")),
        ("done-0-8.json", noted(0, 8)),
        ("done-3-3.json", noted(3, 3)),
        ("done-5-3.json", noted(5, 3)),
        ("done--1-3.json", noted(-1, 3)),
        ("done-0-999999999999.json", noted(0, 999_999_999_999)),
        ("done-0-99999999.json", noted(0, 99_999_999)),
        ("done-a-b.json", noted(0, 1)),
        ("done-0-\u0663.json", noted(0, 3)),
        ("done.json", noted(0, 1)),
        ("part-x-y.npy", b"spoilt"),
        ("part-3.npy", b"spoilt"),
        ("part-99-0.npy", b"spoilt"),
        ("part--1-0.npy", b"spoilt"),
        *(("identity.json", content) for content in NOTES.values()),
        *(("failed", content) for content in NOTES.values()),
        ("tried-0", b"." * 99),
        ("frames/h.png", b"of somebody"),
        ("frames/a.txt", b"of somebody"),
    ],
)
def test_what_we_would_not_write_is_dropped_and_made_again(
    spool: Spool, name: str, content: bytes
) -> None:
    (spool.folder / name).write_bytes(content)
    with spool.begun({"weights": "w"}, TAKEN):
        assert spool.open_windows(7) == [range(7)] and spool.segments() == []
        assert set(everything(spool.folder)) == {"identity.json", "lock"}
        assert spool.failure is None


@pytest.mark.parametrize(
    "name", ["identity.json", "done-0-2.json", "part-3-0.npy", "failed", "tried-0", "frames/a.png"]
)
def test_folders_where_files_of_ours_would_be_are_dropped(spool: Spool, name: str) -> None:
    (spool.folder / name).unlink(missing_ok=True)
    (spool.folder / name / "inner").mkdir(parents=True)
    with spool.begun({"weights": "w"}, TAKEN):
        assert spool.open_windows(7) == [range(7)]
        assert set(everything(spool.folder)) == {"identity.json", "lock"}


def test_a_file_where_the_frames_would_be_is_dropped(spool: Spool) -> None:
    spool.frames.rmdir()
    spool.frames.write_bytes(b"spoilt")
    with spool.begun({"weights": "w"}, TAKEN):
        assert spool.frames.is_dir()


def test_notes_that_overlap_are_not_both_believed(spool: Spool) -> None:
    for first, stop in ((0, 3), (2, 4), (4, 5)):
        spool.mark_done(first, stop, FACTS)
    assert spool.segments() == [range(0, 3), range(4, 5)]


def test_shares_that_do_not_fit_each_other_are_refused(spool: Spool) -> None:
    for number, share in enumerate([gray(0.5), torch.zeros(3, 9, 9), gray(0.5)]):
        spool.write_share(3, number, share)
        spool.mark_done(number, number + 1, FACTS)
    with pytest.raises(DataFormatError, match=r"are gone.*different sizes"):
        spool.add_up(WINDOWS, spool.segments())


def test_a_bit_that_turned_in_a_frame_is_noticed(spool: Spool) -> None:
    for frame in range(7):
        spool.write_frame(frame, torch.rand(3, 4, 6))
    content = spool.image(4).read_bytes()
    for place in range(len(content)):
        turned = bytearray(content)
        turned[place] ^= 1 << place % 8
        spool.image(4).write_bytes(turned)
        with pytest.raises(DataFormatError, match="1 of 7 missing or cut off, first e"):
            spool.check_whole()
    spool.image(4).write_bytes(content)
    spool.check_whole()
