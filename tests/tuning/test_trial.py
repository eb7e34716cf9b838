"""A trial reports its row, in the form that is kept, from the records of its run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tests.tuning.sweeps import config_of
from vrtspike.errors import ConfigError, StorageError
from vrtspike.runs.metrics_log import Record
from vrtspike.storage.folder import Folder
from vrtspike.tuning import trial as module
from vrtspike.tuning.trial import ResultSoFar, TrialRun
from vrtspike.tuning.trial_results import Trial, TrialResult, row_of

TRIAL = Trial("trial-000", "search", {"model.spike.heads": 2}, 0, 0)
COST = {"memory_gb": 1.5, "elapsed_s": 9.0, "spent_s": 8.0, "spent_cpu_s": 7.0}
START: Record = {"kind": "start", "step": 0, "steps": 10}
TRAINED: list[Record] = [
    {"kind": "train", "step": step, "loss": 1 / step, "step_s": seconds, **COST}
    for step, seconds in ((1, 0.5), (2, 9.0), (3, 0.7))
]
VALIDATED: Record = {"kind": "val", "step": 3, "share": 0.3, "psnr": 25.0, "ssim": 0.8}
ROW = TrialResult(
    TRIAL,
    "stopped",
    steps=3,
    val_psnr=25.0,
    val_ssim=0.8,
    loss=1 / 3,
    step_s=0.7,
    memory_gb=1.5,
    seconds=9.0,
    spent_s=8.0,
    spent_cpu_s=7.0,
    share=0.3,
)


def test_a_row_holds_the_last_figures_and_the_median_of_steps() -> None:
    so_far = ResultSoFar(TRIAL)
    assert so_far.row == TrialResult(TRIAL, "stopped")
    news = [so_far.add(record) for record in (START, *TRAINED, VALIDATED, VALIDATED)]
    assert news == [False, False, False, False, True, False]
    assert so_far.row == ROW and so_far.of_steps == 10


def refuse(error: Exception) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("end", "row", "facts"),
    [
        (lambda: None, replace(ROW, state="done"), {"ended": True}),
        (
            refuse(ConfigError("no such thing")),
            replace(ROW, state="failed", error="no such thing"),
            {"ended": True},
        ),
        (refuse(StorageError("away")), ROW, {"ended": False, "trouble": "away"}),
        (refuse(SystemExit()), ROW, {"ended": False}),  # type: ignore[arg-type]
    ],
)
def test_a_run_is_reported_to_its_end(
    end: Callable[[], None],
    row: TrialResult,
    facts: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_training(*_: object, heard: Callable[[Record], None], **__: object) -> Folder:
        for record in (START, *TRAINED, VALIDATED):
            heard(record)
        end()
        return Folder.at(tmp_path)

    monkeypatch.setattr(module, "run_training", run_training)
    trial = TrialRun.__new__(TrialRun)
    trial._base, trial._folder = (
        config_of({"model.spike.heads": {"grid": [2]}}),
        Folder.at(tmp_path),
    )
    trial._resources, trial._scored, trial._preemptible = {}, False, False
    trial._start({"trial": json.dumps(asdict(TRIAL))})
    first, last = trial.step(), trial.step()
    assert row_of(first.pop("row")) == ROW
    assert first == {"of_steps": 10, "validated": True, "replayed": False}
    assert row_of(last.pop("row")) == row
    assert last == {"of_steps": 10, "validated": False, "done": True, **facts}
