"""Whatever somebody put where restore works and writes, nothing outside is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.restoration.clip_files import Job, again, everything, write_clip
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.restoration.output import RECORD
from vrtspike.storage.lock import locked


@pytest.fixture
def job(tmp_path: Path) -> Job:
    clip = write_clip(tmp_path, 3)
    return Job(clip.place, clip.stream, tmp_path / "work" / "out")


@pytest.fixture
def victims(tmp_path: Path) -> Callable[[], bool]:
    """Make files outside the output; return what tells whether they are as they were."""
    for name in ("victim.png", "000.png", "home/000.png", "home/notes.txt", "lock"):
        (tmp_path / "outside" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "outside" / name).write_bytes(b"of somebody")
    before = everything(tmp_path / "outside")
    return lambda: everything(tmp_path / "outside") == before


NAMES = [
    "../../outside/victim",
    "../outside/../../outside/victim",
    "{outside}/victim",
    "sub/../../../outside/victim",
    "\0",
    "a\0b",
    "..",
    ".",
    "",
    "x" * 300,
    1,
    None,
    ["a"],
]


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", [RECORD, ".restoring/delivering"])
def test_names_that_lead_out_delete_nothing(
    job: Job,
    tmp_path: Path,
    victims: Callable[[], bool],
    where: str,
    name: object,
    overwrite: bool,
) -> None:
    if isinstance(name, str):
        name = name.replace("{outside}", str(tmp_path / "outside"))
    (job.out / where).parent.mkdir(parents=True)
    (job.out / "000.png").write_bytes(b"the user's own")
    (job.out / "holiday.png").write_bytes(b"the user's own")
    identity = next(iter(again(job, out=tmp_path / "x").plan().clips.values())).identity
    for names in ([name], [name, "000", "001", "002"], ["000", "001", "002", name]):
        (job.out / where).write_text(json.dumps({"frame_names": names, "identity": identity}))
        (result,) = again(job, overwrite=overwrite).run()
        assert victims()
        assert (job.out / "holiday.png").read_bytes() == b"the user's own"
        if overwrite:
            assert result.state == "done"
            (job.out / RECORD).unlink()
        else:
            assert result.state == "failed" and "exists, and is kept" in str(result.error)
            assert (job.out / "000.png").read_bytes() == b"the user's own"
        (job.out / where).parent.mkdir(exist_ok=True)


def test_a_mark_of_somebody_does_not_replace_the_users_frames(job: Job, tmp_path: Path) -> None:
    identity = next(iter(again(job, out=tmp_path / "x").plan().clips.values())).identity
    (job.out / ".restoring").mkdir(parents=True)
    (job.out / "000.png").write_bytes(b"the user's own")
    mark = {"frame_names": ["000", "001", "002"], "identity": identity}
    for changes in ({}, {"identity": {}}, {"frame_names": ["000"]}, {"more": 1}):
        (job.out / ".restoring" / "delivering").write_text(json.dumps(mark | changes))
        (result,) = again(job).run()
        assert result.state == "failed" and (job.out / "000.png").read_bytes() == b"the user's own"


def test_a_record_without_its_frames_is_no_result(job: Job, tmp_path: Path) -> None:
    identity = next(iter(again(job, out=tmp_path / "x").plan().clips.values())).identity
    job.out.mkdir(parents=True)
    for names in ([], ["zzz"], ["000"], "000", None):
        (job.out / "zzz.png").touch()
        (job.out / RECORD).write_text(json.dumps({"frame_names": names, "identity": identity}))
        (result,) = again(job).run()
        assert result.state == "failed" and "exists, and is kept" in str(result.error)


def test_a_file_beside_a_video_that_is_no_record_is_kept(job: Job) -> None:
    job = again(job, out=job.out.with_suffix(".mp4"))
    beside = job.out.with_name("out.mp4.json")
    beside.parent.mkdir(parents=True)
    for content in ('{"subtitles": []}', "", "[]", '{"identity": 1, "frame_names": []}'):
        for overwrite in (False, True):
            beside.write_text(content)
            (result,) = again(job, overwrite=overwrite).run()
            assert result.state == "failed" and beside.read_text() == content
            assert "vrtspike did not write" in str(result.error)


def test_a_mark_beside_a_video_does_not_replace_it(job: Job) -> None:
    job = again(job, out=job.out.with_suffix(".mp4"))
    job.out.parent.mkdir(parents=True)
    job.out.write_bytes(b"the user's own")
    workspace = job.out.with_name(".restoring-out.mp4")
    workspace.mkdir()
    (workspace / "delivering").write_text("{}")
    (result,) = job.run()
    assert result.state == "failed" and job.out.read_bytes() == b"the user's own"


@pytest.mark.parametrize("name", ["lock", "frames", "identity.json", "tried-0", "failed"])
def test_links_in_the_working_folder_are_not_followed(
    job: Job, tmp_path: Path, victims: Callable[[], bool], name: str
) -> None:
    workspace = job.out.with_name(".restoring-out")
    workspace.mkdir(parents=True)
    target = tmp_path / "outside" / ("home" if name == "frames" else "lock")
    (workspace / name).symlink_to(target)
    (result,) = job.run()
    assert victims()
    assert result.state == ("failed" if name == "lock" else "done"), result.error


def test_a_link_for_a_working_folder_is_not_followed(
    job: Job, tmp_path: Path, victims: Callable[[], bool]
) -> None:
    job.out.parent.mkdir()
    job.out.with_name(".restoring-out").symlink_to(tmp_path / "outside" / "home")
    (result,) = job.run()
    assert result.state == "failed" and "not a file or folder that vrtspike made" in (
        result.error or ""
    )
    assert victims()


def test_a_link_for_a_clips_folder_is_not_followed(
    tmp_path: Path, victims: Callable[[], bool]
) -> None:
    for name in ("a", "b"):
        clip = write_clip(tmp_path, 3, name)
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").symlink_to(tmp_path / "outside" / "home")
    for overwrite in (False, True):
        job = Job(clip.place.parent, clip.stream.parent, out, overwrite=overwrite)
        first, second = job.run()
        assert first.state == "failed" and "a link to another place" in str(first.error)
        assert second.state in ("done", "there") and victims()


def test_the_users_own_link_leads_to_the_output(job: Job, tmp_path: Path) -> None:
    (tmp_path / "big disk").mkdir()
    job.out.parent.mkdir()
    job.out.symlink_to(tmp_path / "big disk")
    assert job.run()[0].state == "done"
    assert (tmp_path / "big disk" / RECORD).is_file()


def test_frames_of_somebody_are_not_published(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, 5)
    job = Job(clip.place, clip.stream, tmp_path / "work" / "out")
    job.model.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        job.run()
    frames = job.out.with_name(".restoring-out") / "frames"
    (frames / "evil.sh").write_text("#!/bin/sh")
    (frames / "999.png").write_text("of somebody")
    assert again(job).run()[0].state == "done"
    assert sorted(file.name for file in job.out.iterdir()) == [
        *(f"{n:03d}.png" for n in range(5)),
        RECORD,
    ]


@pytest.mark.parametrize("kind", ["link", "dangling", "hard link", "pipe", "folder"])
def test_a_lock_is_a_file_of_ours(tmp_path: Path, kind: str) -> None:
    victim, lock = tmp_path / "victim", tmp_path / "lock"
    victim.write_bytes(b"of somebody")
    match kind:
        case "link":
            lock.symlink_to(victim)
        case "dangling":
            lock.symlink_to(tmp_path / "new")
        case "hard link":
            lock.hardlink_to(victim)
        case "pipe":
            os.mkfifo(lock)
        case "folder":
            lock.mkdir()
    refusal = pytest.raises(DataFormatError, match="not a file or folder that vrtspike made")
    with refusal, locked(lock, Exception("taken")):
        pytest.fail("locked")
    assert victim.read_bytes() == b"of somebody" and not (tmp_path / "new").exists()


def test_a_lock_empties_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"of somebody")
    with locked(tmp_path / "lock", Exception("taken")):
        pass
    assert (tmp_path / "lock").read_bytes() == b"of somebody"


def test_names_as_long_as_a_disk_takes(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, 3)
    for length in (200, 244, 245, 250, 255):
        job = Job(clip.place, clip.stream, tmp_path / ("o" * length))
        assert job.run()[0].state == "done"
    for out in ("o" * 256, "o" * 252 + ".mp4", "o" * 248 + ".mp4"):
        try:
            (result,) = Job(clip.place, clip.stream, tmp_path / out).run()
            line = str(result.error)
        except ConfigError as error:
            line = str(error)
        assert "no disk takes this name" in line and "\n" not in line
    job = Job(clip.place, clip.stream, tmp_path / ("o" * 246 + ".mp4"))
    assert job.run()[0].state == "done"
