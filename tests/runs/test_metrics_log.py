"""metrics.jsonl has every step once, on a disk and in an object store."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vrtspike.errors import ResourceError
from vrtspike.runs.folder import only_one
from vrtspike.runs.metrics_log import MetricsLog, read_metrics
from vrtspike.runs.paths import METRICS
from vrtspike.storage.folder import Folder


@pytest.fixture(params=["disk", "store"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """Return the folder of a run."""
    if request.param == "disk":
        return Folder.at(tmp_path)
    pattern: str = request.getfixturevalue("bucket")
    return Folder.at(pattern.format(f"metrics_log/{tmp_path.name}"))


def write_steps(run: Folder, resumed: int, last: int) -> None:
    metrics_log = MetricsLog(run, resumed=resumed, tensorboard=False)
    for step in range(resumed + 1, last + 1):
        record = metrics_log.write("train", step, loss=1.0 / step)
        assert record == {"kind": "train", "step": step, "loss": 1.0 / step}
    metrics_log.close()


def test_a_continued_run_has_every_step_once(run: Folder) -> None:
    write_steps(run, 0, 7)
    run.write(METRICS, run.read(METRICS) + b'{"kind": "train", "st')
    write_steps(run, 5, 9)
    assert [record["step"] for record in read_metrics(run)] == list(range(1, 10))


def test_what_was_published_is_there_though_the_process_dies(run: Folder) -> None:
    metrics_log = MetricsLog(run, resumed=0)
    metrics_log.write("train", 1, loss=0.5)
    metrics_log.publish()
    assert [record["step"] for record in read_metrics(run)] == [1]
    assert any(name.startswith("tensorboard/") for name in run.listing())
    metrics_log.close()


def test_numbers_that_json_does_not_know_are_null(tmp_path: Path) -> None:
    metrics_log = MetricsLog(Folder.at(tmp_path), resumed=0, tensorboard=False)
    nan, infinity = float("nan"), float("inf")
    metrics_log.write(
        "train", 1, loss=nan, terms={"l1": nan, "l2": 1.0}, grad_norm=infinity, skipped=1
    )
    metrics_log.close()
    line = json.loads((tmp_path / METRICS).read_text())
    assert (line["loss"], line["grad_norm"], line["skipped"]) == (None, None, 1)
    assert line["terms"] == {"l1": None, "l2": 1.0}


def test_tensorboard_gets_the_curves_and_the_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics_log = MetricsLog(Folder.at(tmp_path), resumed=0)
    metrics_log.write("train", 1, loss=0.5, terms={"charbonnier": 0.25})
    metrics_log.write("val", 1, psnr=30.0)
    metrics_log.picture("restored", 1, np.zeros((4, 6, 3), np.uint8))
    metrics_log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["train/loss", "train/terms/charbonnier", "val/psnr"]
    assert events.Scalars("val/psnr")[0].value == 30.0
    (picture,) = events.Images("restored")
    assert (picture.width, picture.height) == (6, 4)


def test_a_run_is_locked_until_its_holder_ends(tmp_path: Path) -> None:
    run = Folder.at(tmp_path)
    with only_one(run), pytest.raises(ResourceError, match="being trained already"), only_one(run):
        pass
    with only_one(run):
        pass


def test_a_store_that_is_away_costs_no_record(
    bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from vrtspike.errors import DataFormatError

    run = Folder.at(bucket.format("metrics_log/away"))
    metrics_log = MetricsLog(run, resumed=0, tensorboard=False)
    metrics_log.write("train", 1, loss=0.5)
    write: Callable[[Folder, str, bytes], None] = Folder.write

    def fail(folder: Folder, name: str, content: bytes) -> None:
        raise DataFormatError("cannot write the file", where=name)

    monkeypatch.setattr(Folder, "write", fail)
    metrics_log.publish()
    assert "metrics are behind" in caplog.text
    monkeypatch.setattr(Folder, "write", write)
    metrics_log.close()
    assert [record["step"] for record in read_metrics(run)] == [1]


def test_a_full_disk_costs_neither_the_run_nor_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Folder.at(tmp_path)
    metrics_log = MetricsLog(run, resumed=0)
    full = open("/dev/full", "a")  # noqa: SIM115
    room = os.dup(metrics_log._file.fileno())
    os.dup2(full.fileno(), metrics_log._file.fileno())
    for step in range(400):
        metrics_log.write("start", step, passed_over=["x" * 100])
    assert caplog.text.count("No space left") == 1
    os.dup2(room, metrics_log._file.fileno())
    metrics_log.write("start", 400)
    metrics_log.close()
    full.close()
    assert [record["step"] for record in read_metrics(run)] == list(range(401))
