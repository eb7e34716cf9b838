"""What is there is kept or replaced as it was asked for, and nobody else's files go with it."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.restoration.clip_files import (
    SETTINGS,
    Job,
    again,
    everything,
    whole,
    write_clip,
)
from tests.video.video_files import Track, encode, moving, packets, psnr
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.restoration.output import RECORD, ClipOutput, clip_outputs
from vrtspike.video.inspect import inspect_video_file, iter_frames

LUMA = (0.2126, 0.7152, 0.0722)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    clip = write_clip(tmp_path, 5)
    return Job(clip.place, clip.stream, tmp_path / "out")


def only_error(job: Job) -> str:
    """Return the line with which the only clip of a job is refused, before anything is done."""
    (error,) = job.plan().errors.values()
    assert isinstance(error, (ConfigError, DataFormatError)) and "\n" not in str(error)
    return str(error)


def test_a_result_says_what_it_is_of(job: Job) -> None:
    job.run()
    record = json.loads((job.out / RECORD).read_text())
    assert record["frames"] == 5 and record["frame_names"] == [f"{n:03d}" for n in range(5)]
    assert record["identity"]["weights"] == "those" and record["settings"]["tile_frames"] == 4
    assert {"vrtspike", "date", "seconds", "tiles", "memory"} <= set(record)
    assert sorted(f.name for f in job.out.iterdir()) == [
        *(f"{n:03d}.png" for n in range(5)),
        RECORD,
    ]


def test_a_result_that_is_there_is_done(job: Job) -> None:
    job.run()
    before = everything(job.out.parent)
    for overwrite in (False, True):
        second = again(job, overwrite=overwrite)
        (result,) = second.run()
        assert (result.state, result.frames, second.model.seen) == ("there", 5, [])
    assert everything(job.out.parent) == before


def test_an_empty_folder_is_filled(job: Job) -> None:
    job.out.mkdir()
    assert job.run()[0].state == "done"
    assert len(list(job.out.iterdir())) == 6


def test_other_things_that_are_there_are_kept(job: Job) -> None:
    job.out.mkdir()
    (job.out / "notes.txt").write_text("of somebody")
    before = everything(job.out.parent)
    line = only_error(job)
    assert "exists, and is kept" in line and "nothing that vrtspike restored" in line
    (result,) = job.run()
    assert (result.state, result.error) == ("failed", line)
    assert everything(job.out.parent) == before


@pytest.mark.parametrize(
    "changes", [{"weights": "others"}, {"settings": replace(SETTINGS, tile=16)}]
)
def test_a_result_of_something_else_is_kept_or_replaced(job: Job, changes: dict[str, str]) -> None:
    job.run()
    before = everything(job.out.parent)
    assert "a result of other weights, input or settings" in only_error(again(job, **changes))
    assert everything(job.out.parent) == before
    (result,) = again(job, overwrite=True, **changes).run()
    assert result.state == "done"
    assert again(job, **changes).run()[0].state == "there"


def test_a_model_that_takes_its_spikes_in_another_way_gives_another_result(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.run()
    assert job.restorer.spikes is not None
    other = replace(job.restorer, spikes=replace(job.restorer.spikes, voxels="log1p"))
    monkeypatch.setattr(Job, "restorer", other)
    assert "a result of other" in only_error(again(job))


def test_a_result_of_which_frames_are_missing_is_not_taken_for_done(job: Job) -> None:
    job.run()
    (job.out / "002.png").unlink()
    assert "frames missing" in only_error(again(job))
    assert again(job, overwrite=True).run()[0].state == "done"
    assert (job.out / "002.png").is_file()


def test_a_folder_and_a_video_do_not_replace_each_other(job: Job, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").mkdir()
    (tmp_path / "a.mp4" / "x").touch()
    (tmp_path / "b").touch()
    spikes = ["x"]
    assert ClipOutput(tmp_path / "new", False, True).is_done({}, ()) is False
    with pytest.raises(ConfigError, match="has the name of a folder"):
        ClipOutput(tmp_path / "a.mp4", True, True).is_done({}, ())
    with pytest.raises(ConfigError, match="the output is a file"):
        ClipOutput(tmp_path / "b", False, True).is_done({}, ())
    with pytest.raises(DataFormatError, match=r"must be a folder or a video.*got a file"):
        clip_outputs(spikes, tmp_path / "b", single=True, kind=None, overwrite=True, fps=None)


def test_names_say_where_clips_go(tmp_path: Path) -> None:
    def places(names: list[str], out: str, **changes: object) -> list[str]:
        asked = {"single": len(names) == 1, "kind": None, "overwrite": False, "fps": None}
        found = clip_outputs(names, tmp_path / out, **(asked | changes))
        assert {d.video for d in found} == {bool(d.place.suffix) for d in found}
        return [d.place.relative_to(tmp_path).as_posix() for d in found]

    assert places(["a"], "out") == places(["a"], "out", kind="png") == ["out"]
    assert places(["a", "b"], "out") == ["out/a", "out/b"]
    assert places(["a"], "out", kind="mkv") == ["out/a.mkv"]
    assert places(["a", "b"], "out", kind="mp4") == ["out/a.mp4", "out/b.mp4"]
    assert places(["a"], "x.MOV") == places(["a"], "x.MOV", kind="mov") == ["x.MOV"]
    (tmp_path / "y.mp4").mkdir()
    assert places(["a"], "y.mp4", kind="mov") == ["y.mp4/a.mov"]
    with pytest.raises(ConfigError, match=r"another format.*--format png"):
        places(["a"], "x.mp4", kind="png")
    with pytest.raises(ConfigError, match=r"several clips, and one video.*2 clips"):
        places(["a", "b"], "x.mp4")
    with pytest.raises(ConfigError, match=r"names no video that can be written.*\.avi"):
        places(["a"], "x.avi")


def test_workspaces_of_clips_in_one_folder_are_apart(tmp_path: Path) -> None:
    found = [ClipOutput(tmp_path / name, False, False).workspace for name in ("a", "b", "a.mp4")]
    assert len(set(found)) == 3
    assert all(s.parent == tmp_path and s.name.startswith(".") for s in found)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_video_of_images_runs_at_the_rate_of_the_camera(job: Job, suffix: str) -> None:
    clip = write_clip(job.out.parent / "more", 9, seed=4)
    target = job.out.with_suffix(suffix)
    job = again(job, footage=clip.place, spikes=clip.stream, out=target)
    assert job.run()[0].state == "done"
    info = inspect_video_file(target)
    assert (info.frames, info.rate) == (9, 25), "200 steps a second, 8 a frame"
    # Of noise, colours are not kept.
    found, truth = (
        list(x @ LUMA) for x in (np.stack([*iter_frames(target)]), whole(clip, SETTINGS))
    )
    assert psnr(found, truth) > 35
    assert json.loads((target.parent / f"{target.name}.json").read_text())["frames"] == 9
    assert again(job).run()[0].state == "there"
    # Another rate is another video.
    other = again(job, fps=Fraction(30))
    assert "a result of other" in only_error(other)
    assert again(other, overwrite=True).run()[0].state == "done"
    assert inspect_video_file(target).rate == 30


def test_a_rate_that_nothing_says_is_asked_for_before_the_work(job: Job) -> None:
    job = again(job, spikes=None, out=job.out.with_suffix(".mp4"))
    assert "how many frames a second" in only_error(job) and "--fps" in only_error(job)
    assert again(job, fps=Fraction(10)).run()[0].state == "done"
    assert inspect_video_file(job.out).rate == 10


def test_a_video_of_a_video_keeps_times_and_sound(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    times = [40 * n + (9 * n) % 25 for n in range(12)]
    source = encode(tmp_path / "in" / "a.mkv", moving(12), milliseconds=times, tracks=[Track()])
    job = Job(source, None, tmp_path / "out.mp4")
    assert job.run()[0].state == "done"
    info = inspect_video_file(job.out)
    assert info.times is not None
    assert [1000 * t * info.time_base for t in info.times] == times
    assert [p for _, p in packets(job.out)] == [p for _, p in packets(source)]
    refused = again(job, out=tmp_path / "other.mp4", fps=Fraction(30))
    assert "keep the times of their video" in only_error(refused)


@pytest.mark.parametrize("error", [DataFormatError("cannot write"), OSError(5, "cannot write")])
def test_a_video_that_cannot_be_written_leaves_the_old_one(job: Job, error: Exception) -> None:
    job.out = job.out.with_suffix(".mp4")
    job.out.write_bytes(b"an older film")
    job.overwrite = True
    (workspace,) = [clip.workspace for clip in job.plan().clips.values()]

    def fail(*_: object, **__: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vrtspike.restoration.output.write_video", fail)
        (result,) = job.run()
    assert result.state == "failed" and "cannot write" in str(result.error)
    assert job.out.read_bytes() == b"an older film"
    names = {file.name for file in job.out.parent.iterdir()}
    assert names == {"in", "spikes", "out.mp4", workspace.folder.name}
    second = again(job)
    assert second.run()[0].state == "done" and not second.model.seen, "all frames were there"
    assert not workspace.folder.exists()


def test_frames_that_were_damaged_on_the_way_are_not_published(job: Job) -> None:
    job.model.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        job.run()
    workspace = job.out.parent / ".restoring-out"
    (workspace / "frames" / "000.png").write_bytes(b"")
    (result,) = again(job).run()
    assert result.state == "failed" and "1 of 5 missing or cut off" in str(result.error)
    assert str(workspace) in str(result.error) and not job.out.exists()
