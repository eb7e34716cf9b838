"""Clips restored by workers on Ray are those restored in one process, and fail as these do."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.restoration.clip_files import (
    SETTINGS,
    Job,
    Placed,
    as_model_sees,
    images_of,
    whole,
    write_clip,
)
from vrtspike.restoration.job import restore_clips
from vrtspike.restoration.plan import ClipResult

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.ray]


class Weighted(Placed):
    """A model with weights, which must travel to the workers."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, blurred: torch.Tensor, voxels: torch.Tensor | None = None) -> torch.Tensor:
        return self.gain * super().forward(blurred, voxels)


def on_ray(job: Job, workers: int) -> list[ClipResult]:
    from vrtspike.restoration.on_ray import OnRay

    runner = OnRay(job.restorer, job.settings, workers, gpu=False, threads=1)
    return restore_clips(job.plan(), runner, lambda *done: job.heard.append(done))


def images(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png")}


def test_two_workers_restore_what_one_process_does(tmp_path: Path) -> None:
    clips = {n: write_clip(tmp_path, count, n, count) for n, count in (("a", 25), ("b", 7))}
    job = Job(tmp_path / "in", tmp_path / "spikes", tmp_path / "ray", model=Weighted())
    results = on_ray(job, 2)
    assert [(r.name, r.state, r.frames) for r in results] == [("a", "done", 25), ("b", "done", 7)]
    assert job.heard[0] == (0, 32) and job.heard[-1] == (32, 32)
    alone = replace(job, out=tmp_path / "one", model=Weighted())
    alone.run()
    assert images(tmp_path / "ray") == images(tmp_path / "one")
    for name, clip in clips.items():
        expected = whole(clip, SETTINGS, Weighted())
        assert (images_of(tmp_path / "ray" / name) == expected).all()
    assert [r.state for r in on_ray(job, 2)] == ["there", "there"]


def test_a_clip_that_fails_is_a_result_and_the_other_is_done(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        write_clip(tmp_path, 13, name, seed)
    (tmp_path / "in/a/009.png").write_bytes(b"spoilt")
    job = Job(tmp_path / "in", tmp_path / "spikes", tmp_path / "out")
    failed, done = on_ray(job, 2)
    assert (failed.state, done.state) == ("failed", "done")
    assert str(failed.error).startswith("not an image") and "009.png" in str(failed.error)
    assert not (tmp_path / "out" / "a").exists()
    assert len(list((tmp_path / "out" / "b").glob("*.png"))) == 13


class Deadly(Placed):
    """End the process, as the kernel does where memory ends, at frames of one clip."""

    def __init__(self, frame: bytes) -> None:
        super().__init__()
        self.frame = frame

    def forward(self, blurred: torch.Tensor, voxels: torch.Tensor | None = None) -> torch.Tensor:
        restored = super().forward(blurred, voxels)
        if self.frame in self.seen[-1]:
            os._exit(1)
        return restored


def test_a_clip_that_workers_die_of_fails_in_the_end(tmp_path: Path) -> None:
    clips = [write_clip(tmp_path, 7, name, seed) for seed, name in enumerate("ab")]
    model = Deadly(as_model_sees(clips[0].frames[6:7]))
    job = Job(tmp_path / "in", tmp_path / "spikes", tmp_path / "out", model=model)
    failed, done = on_ray(job, 2)
    assert (failed.state, done.state) == ("failed", "done")
    assert "workers die of this clip" in str(failed.error)
    assert (images_of(tmp_path / "out" / "b") == whole(clips[1], SETTINGS)).all()
