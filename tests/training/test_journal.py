"""metrics.jsonl has every step once; notes of the run's folder travel whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vrtspike.errors import CheckpointError, VrtSpikeError
from vrtspike.training.folder import RunFolder
from vrtspike.training.journal import Journal, read_journal
from vrtspike.training.trainer import _Tail


def write_steps(folder: Path, resumed: int, last: int) -> None:
    journal = Journal(folder, resumed=resumed, tensorboard=False)
    for step in range(resumed + 1, last + 1):
        journal.write("train", step, loss=1.0 / step)
    journal.close()


def test_a_continued_run_has_every_step_once(tmp_path: Path) -> None:
    write_steps(tmp_path, 0, 7)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    write_steps(tmp_path, 5, 9)
    assert [record["step"] for record in read_journal(tmp_path)] == list(range(1, 10))


def test_numbers_that_json_does_not_know_are_null(tmp_path: Path) -> None:
    journal = Journal(tmp_path, resumed=0, tensorboard=False)
    journal.write("train", 1, loss=float("nan"), grad_norm=float("inf"), skipped=1)
    journal.close()
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line) == {
        "kind": "train",
        "step": 1,
        "loss": None,
        "grad_norm": None,
        "skipped": 1,
    }


def test_the_driver_reads_each_record_once_also_over_a_restart(tmp_path: Path) -> None:
    tail = _Tail(tmp_path / "metrics.jsonl")
    assert tail.read() == []
    write_steps(tmp_path, 0, 3)
    assert [record["step"] for record in tail.read()] == [1, 2, 3]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", ')
        file.flush()
        assert tail.read() == []
        file.write('"step": 4}\n')
    assert [record["step"] for record in tail.read()] == [4]
    write_steps(tmp_path, 2, 3)
    assert [record["step"] for record in tail.read()] == [1, 2, 3]


def test_tensorboard_gets_the_curves(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    journal = Journal(tmp_path, resumed=0)
    journal.write("train", 1, loss=0.5)
    journal.write("val", 1, psnr=30.0)
    journal.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["train/loss", "val/psnr"]
    assert events.Scalars("val/psnr")[0].value == 30.0


@pytest.mark.parametrize("kind", [CheckpointError, VrtSpikeError])
def test_an_error_reaches_the_driver_whole(tmp_path: Path, kind: type[VrtSpikeError]) -> None:
    folder = RunFolder(tmp_path)
    assert folder.reported_failure() is None
    error = kind("what", where=tmp_path, got=1, expected=2, fix="so")
    folder.report_failure(error)
    folder.report_failure(VrtSpikeError("a later one"))
    found = folder.reported_failure()
    assert type(found) is kind and str(found) == str(error)
    folder.clear_notes()
    assert folder.reported_failure() is None
