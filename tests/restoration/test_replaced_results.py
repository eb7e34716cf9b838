"""A result that replaces another is whole, wherever a stop comes, and others' files stay."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.restoration.clip_files import (
    SETTINGS,
    Job,
    Written,
    again,
    everything,
    images_of,
    whole,
    write_clip,
)
from vrtspike.restoration.output import RECORD


@pytest.fixture
def job(tmp_path: Path) -> Job:
    clip = write_clip(tmp_path, 5)
    return Job(clip.place, clip.stream, tmp_path / "out")


def written(job: Job) -> Written:
    """Return what `job` restores: the clip that the fixture wrote."""
    return write_clip(job.out.parent / "copy", 5)


def test_what_replaces_a_longer_result_leaves_none_of_its_frames(job: Job, tmp_path: Path) -> None:
    job.run()
    (job.out / "notes.txt").write_text("of somebody")
    (job.out / "masks").mkdir()
    (job.out / "masks" / "000.png").write_text("a mask")
    (job.out / "zzz.png").write_text("an image of somebody")
    short = write_clip(tmp_path / "short", 3, seed=9)
    job = again(job, footage=short.place, spikes=short.stream, overwrite=True)
    assert job.run()[0].state == "done"
    assert sorted(file.name for file in job.out.iterdir()) == [
        *("000.png", "001.png", "002.png", "masks", "notes.txt", RECORD, "zzz.png")
    ]
    assert (job.out / "masks" / "000.png").read_text() == "a mask"
    (job.out / "zzz.png").unlink()
    np.testing.assert_array_equal(images_of(job.out), whole(short, SETTINGS))


@pytest.mark.parametrize("moves", [0, 1, 3])
def test_a_stop_while_frames_are_moved_in_is_taken_up(
    job: Job, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    expected = job.run() and everything(job.out)
    shutil.rmtree(job.out)
    job.out.mkdir()
    made, plain = [0], Path.replace

    def replace(self: Path, target: Path) -> Path:
        if Path(target).parent == job.out:
            made[0] += 1
            if made[0] > moves:
                raise KeyboardInterrupt
        return plain(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", replace)
        job.run()
    assert len(list(job.out.glob("*.png"))) == moves
    (job.out / "notes.txt").write_text("of somebody")
    job = again(job)
    assert job.run()[0].state == "done"
    found = everything(job.out)
    assert found.pop("notes.txt") == b"of somebody"
    assert {k: v for k, v in found.items() if k != RECORD} == {
        k: v for k, v in expected.items() if k != RECORD
    }


@pytest.mark.parametrize("then", ["others", "those"])
@pytest.mark.parametrize(("moves", "count"), [(0, 3), (1, 3), (3, 3), (1, 5)])
def test_a_stop_while_a_result_is_replaced_mixes_no_two(
    job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moves: int, count: int, then: str
) -> None:
    job.run()
    (job.out / "notes.txt").write_text("of somebody")
    short = write_clip(tmp_path / "short", count, seed=9)
    other = again(job, footage=short.place, spikes=short.stream, overwrite=True)
    made, plain = [0], Path.replace

    def replace(self: Path, target: Path) -> Path:
        if Path(target).parent == job.out:
            made[0] += 1
            if made[0] > moves:
                raise KeyboardInterrupt
        return plain(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", replace)
        other.run()
    # Whichever is restored next, the one that was being replaced or the other, is whole.
    next_one = again(other if then == "others" else job, overwrite=True)
    assert next_one.run()[0].state == "done"
    assert next_one.model.seen == [] if then == "others" else next_one.model.seen
    assert (job.out / "notes.txt").read_text() == "of somebody"
    expected = whole(short, SETTINGS) if then == "others" else whole(written(job), SETTINGS)
    np.testing.assert_array_equal(images_of(job.out), expected)
    assert {file.suffix for file in job.out.iterdir()} == {".png", ".json", ".txt"}


def test_a_place_that_fills_while_frames_are_restored_is_kept(job: Job) -> None:
    planned = job.plan()
    job.out.mkdir()
    (job.out / "notes.txt").write_text("of somebody")
    (result,) = job.restore(planned)
    assert result.state == "failed" and "exists, and is kept" in (result.error or "")
    assert set(everything(job.out)) == {"notes.txt"}
