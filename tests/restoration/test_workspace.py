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

from tests.restoration.clip_files import everything
from vrtspike.errors import DataFormatError, ResourceError
from vrtspike.restoration.tiling import cover
from vrtspike.restoration.workspace import Workspace, _sum_of

NAMES = tuple("abcdefg")
WINDOWS = cover(7, 4, 2)
"""[0, 4), [1, 5), [3, 7): frame 3 is in all of them."""
FACTS = {"frames": 1, "seconds": 1.0, "tile": None, "memory": 1}
TAKEN = ResourceError("taken")
HOLD = """
import sys
from pathlib import Path
from vrtspike.storage.lock import locked
with locked(Path(sys.argv[1]), Exception("taken")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "workspace", NAMES)
    with workspace.begun({"weights": "w"}, TAKEN):
        pass
    return workspace


def gray(level: float) -> Tensor:
    return torch.full((3, 4, 6), level)


def levels(workspace: Workspace, frame: int) -> set[int]:
    return set(np.unique(np.asarray(Image.open(workspace.image(frame)))))


def test_frames_come_back_rounded_and_clipped(workspace: Workspace) -> None:
    values = torch.linspace(-0.2, 1.2, 3 * 4 * 6).reshape(3, 4, 6)
    workspace.write_frame(2, values)
    found = np.asarray(Image.open(workspace.frames / "c.png"))
    expected = (values.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    np.testing.assert_array_equal(found, expected)
    assert [file.name for file in workspace.frames.iterdir()] == ["c.png"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_shares_are_added_up_after_the_last_of_them(
    workspace: Workspace, order: tuple[int, ...]
) -> None:
    shares = {0: 0.5, 1: 0.25, 2: 0.125}
    for number in order:
        assert not workspace.image(3).exists()
        workspace.write_share(3, number, gray(shares[number]))
        workspace.add_up(WINDOWS, workspace.segments())
        assert not workspace.image(3).exists(), "written, but not yet noted as done"
        workspace.mark_done(number, number + 1, FACTS)
        workspace.add_up(WINDOWS, workspace.segments())
    assert levels(workspace, 3) == {round(0.875 * 255)}
    assert not list(workspace.folder.glob("part-*"))


def test_a_frame_waits_for_the_windows_that_hold_it_alone(workspace: Workspace) -> None:
    for number in (0, 1):
        workspace.write_share(1, number, gray(0.5))
        workspace.mark_done(number, number + 1, FACTS)
    workspace.add_up(WINDOWS, workspace.segments())
    assert levels(workspace, 1) == {255}


def test_windows_that_are_open_are_those_that_no_segment_did(workspace: Workspace) -> None:
    assert workspace.open_windows(7) == [range(7)]
    for first, stop in ((2, 4), (6, 7), (4, 5)):
        workspace.mark_done(first, stop, FACTS)
    assert workspace.open_windows(7) == [range(0, 2), range(5, 6)]
    assert [facts["first"] for facts in workspace.done()] == [2, 4, 6]
    (workspace.folder / "done-4-5.json").write_bytes(b"")
    assert workspace.open_windows(7) == [range(0, 2), range(4, 6)], "an empty note is none"


def test_the_same_identity_goes_on_and_another_starts_anew(workspace: Workspace) -> None:
    workspace.write_frame(0, gray(0.5))
    workspace.write_share(3, 0, gray(0.5))
    workspace.mark_done(0, 1, FACTS)
    assert workspace.failure is None
    workspace.fail(DataFormatError("spoilt", where=Path("a.png")))
    assert (
        isinstance(workspace.failure, DataFormatError)
        and str(workspace.failure) == "spoilt [a.png]"
    )
    before = everything(workspace.folder)
    with workspace.begun({"weights": "w"}, TAKEN):
        assert workspace.failure is None
    assert set(before) - set(everything(workspace.folder)) == {"failed"}
    with workspace.begun({"weights": "v"}, TAKEN):
        assert set(everything(workspace.folder)) == {"identity.json", "lock"}
        assert workspace.frames.is_dir()


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("exploded"),)


def test_a_pickle_that_somebody_put_there_runs_nothing(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (pickle.dumps(Bomb()), b"", b"spoilt", b"\xff", b"[" * 10_000):
        (workspace.folder / "failed").write_bytes(content)
        failure = workspace.failure
        assert isinstance(failure, DataFormatError), "no more is done for this clip"
        assert "note of the restoration is damaged" in str(failure)
    assert not (tmp_path / "exploded").exists()
    with workspace.begun({"weights": "w"}, TAKEN):
        assert workspace.failure is None


def test_files_that_were_being_written_are_dropped(workspace: Workspace) -> None:
    (workspace.frames / ".vrtspike-x").write_bytes(b"half")
    (workspace.folder / ".vrtspike-y").write_bytes(b"half")
    with workspace.begun({"weights": "w"}, TAKEN):
        assert set(everything(workspace.folder)) == {"identity.json", "lock"}


def test_shares_of_a_segment_that_was_stopped_are_dropped(workspace: Workspace) -> None:
    workspace.write_share(3, 0, gray(0.5))
    workspace.write_share(3, 1, gray(0.25))
    workspace.mark_done(1, 2, FACTS)
    with workspace.begun({"weights": "w"}, TAKEN):
        assert [file.name for file in workspace.folder.glob("part-*")] == ["part-3-1.npy"]


def test_a_stop_between_adding_up_and_deleting_changes_nothing(workspace: Workspace) -> None:
    for number in range(3):
        workspace.write_share(3, number, gray(0.25))
        workspace.mark_done(number, number + 1, FACTS)
    kept = (workspace.folder / "part-3-2.npy").read_bytes()
    workspace.add_up(WINDOWS, workspace.segments())
    (workspace.folder / "part-3-2.npy").write_bytes(kept)
    workspace.add_up(WINDOWS, workspace.segments())
    assert levels(workspace, 3) == {round(0.75 * 255)}
    assert not list(workspace.folder.glob("part-*"))


def test_shares_that_are_gone_or_damaged_are_noticed(workspace: Workspace) -> None:
    for number in range(3):
        workspace.write_share(3, number, gray(0.25))
        workspace.mark_done(number, number + 1, FACTS)
    share = workspace.folder / "part-3-1.npy"
    content = share.read_bytes()
    turned = bytearray(content)
    turned[len(turned) // 2] ^= 1
    for damaged in (b"", content[:-40], b"spoilt" * 9, bytes(turned), content + b"x"):
        share.write_bytes(damaged)
        with pytest.raises(DataFormatError, match=r"are gone.*share that is damaged"):
            workspace.add_up(WINDOWS, workspace.segments())
    share.unlink()
    with pytest.raises(DataFormatError, match=r"are gone.*2 of 3 shares of frame 3"):
        workspace.add_up(WINDOWS, workspace.segments())
    assert not workspace.image(3).exists()


def test_frames_that_are_gone_or_cut_off_are_noticed(workspace: Workspace) -> None:
    for frame in range(7):
        workspace.write_frame(frame, gray(0.5))
    workspace.check_whole()
    content = workspace.image(4).read_bytes()
    for damaged in (b"", content[:-1], content[: len(content) // 2]):
        workspace.image(4).write_bytes(damaged)
        with pytest.raises(DataFormatError, match="1 of 7 missing or cut off, first e"):
            workspace.check_whole()
    workspace.image(1).unlink()
    with pytest.raises(DataFormatError, match="2 of 7 missing or cut off, first b"):
        workspace.check_whole()


def test_one_process_holds_it_at_a_time(workspace: Workspace) -> None:
    before = everything(workspace.folder)
    # The lock is the system's: it ends with its process, however that ends.
    holding = subprocess.Popen(
        [sys.executable, "-c", HOLD, workspace.folder / "lock"], stdin=PIPE, stdout=PIPE, text=True
    )
    with holding:
        assert holding.stdout is not None and holding.stdout.readline() == "held\n"
        with pytest.raises(ResourceError, match="taken"), workspace.begun({"weights": "v"}, TAKEN):
            pytest.fail("held twice")
        holding.kill()
    assert set(everything(workspace.folder)) == set(before)
    with workspace.begun({"weights": "w"}, TAKEN):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    workspace = Workspace(tmp_path / "file" / "workspace", NAMES)
    with pytest.raises(ResourceError, match="cannot write beside"), workspace.begun({}, TAKEN):
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
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(workspace.folder)
    with full_disk(monkeypatch):
        with pytest.raises(DataFormatError, match=r"No space left.*a\.png.*free space"):
            workspace.write_frame(0, gray(0.5))
        with pytest.raises(DataFormatError, match=r"No space left.*part-3-0"):
            workspace.write_share(3, 0, gray(0.5))
    assert everything(workspace.folder) == before


def test_workers_may_die_of_a_segment_some_times(workspace: Workspace) -> None:
    for _ in range(2):
        for _ in range(3):
            workspace.note_attempt(4, 3)
        workspace.note_attempt(5, 3)
        with pytest.raises(ResourceError, match=r"workers die of this clip.*3 attempts"):
            workspace.note_attempt(4, 3)
        # Another start is another chance.
        with workspace.begun({"weights": "w"}, TAKEN):
            pass


def test_what_is_noted_is_plain_json(workspace: Workspace) -> None:
    workspace.mark_done(0, 2, FACTS)
    (file,) = workspace.folder.glob("done-*")
    noted = json.loads(file.read_text())
    assert noted.pop("sum") and noted == {**FACTS, "first": 0, "stop": 2}
    workspace.remove()
    assert not workspace.folder.exists()


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
    workspace: Workspace, name: str, content: bytes
) -> None:
    (workspace.folder / name).write_bytes(content)
    with workspace.begun({"weights": "w"}, TAKEN):
        assert workspace.open_windows(7) == [range(7)] and workspace.segments() == []
        assert set(everything(workspace.folder)) == {"identity.json", "lock"}
        assert workspace.failure is None


@pytest.mark.parametrize(
    "name", ["identity.json", "done-0-2.json", "part-3-0.npy", "failed", "tried-0", "frames/a.png"]
)
def test_folders_where_files_of_ours_would_be_are_dropped(workspace: Workspace, name: str) -> None:
    (workspace.folder / name).unlink(missing_ok=True)
    (workspace.folder / name / "inner").mkdir(parents=True)
    with workspace.begun({"weights": "w"}, TAKEN):
        assert workspace.open_windows(7) == [range(7)]
        assert set(everything(workspace.folder)) == {"identity.json", "lock"}


def test_a_file_where_the_frames_would_be_is_dropped(workspace: Workspace) -> None:
    workspace.frames.rmdir()
    workspace.frames.write_bytes(b"spoilt")
    with workspace.begun({"weights": "w"}, TAKEN):
        assert workspace.frames.is_dir()


def test_notes_that_overlap_are_not_both_believed(workspace: Workspace) -> None:
    for first, stop in ((0, 3), (2, 4), (4, 5)):
        workspace.mark_done(first, stop, FACTS)
    assert workspace.segments() == [range(0, 3), range(4, 5)]


def test_shares_that_do_not_fit_each_other_are_refused(workspace: Workspace) -> None:
    for number, share in enumerate([gray(0.5), torch.zeros(3, 9, 9), gray(0.5)]):
        workspace.write_share(3, number, share)
        workspace.mark_done(number, number + 1, FACTS)
    with pytest.raises(DataFormatError, match=r"are gone.*different sizes"):
        workspace.add_up(WINDOWS, workspace.segments())


def test_a_bit_that_turned_in_a_frame_is_noticed(workspace: Workspace) -> None:
    for frame in range(7):
        workspace.write_frame(frame, torch.rand(3, 4, 6))
    content = workspace.image(4).read_bytes()
    for place in range(len(content)):
        turned = bytearray(content)
        turned[place] ^= 1 << place % 8
        workspace.image(4).write_bytes(turned)
        with pytest.raises(DataFormatError, match="1 of 7 missing or cut off, first e"):
            workspace.check_whole()
    workspace.image(4).write_bytes(content)
    workspace.check_whole()
