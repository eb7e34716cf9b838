"""What the searcher of a sweep makes of what Ray Tune tells it; no cluster is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from tests.tuning.sweeps import config_of
from vrtspike.config.loader import change
from vrtspike.errors import ResourceError, StorageError
from vrtspike.storage.folder import Folder
from vrtspike.tuning import tune_searcher as module
from vrtspike.tuning.trial_results import Trial, TrialResult, read_rows, row_text
from vrtspike.tuning.tune_searcher import TuneSearcher

HEADS = {"model.spike.heads": {"grid": [1, 2]}}


@pytest.fixture
def searcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TuneSearcher:
    """Return the searcher of a new sweep of one trial at a time."""
    monkeypatch.setattr(module, "claimed", lambda folder: None)
    return open_desk(tmp_path)


def open_desk(folder: Path, room: int = 1) -> TuneSearcher:
    manifest: Any = None
    return TuneSearcher(config_of(HEADS, repeats=1), Folder.at(folder), room, manifest)


def name(suggestion: object) -> str:
    assert isinstance(suggestion, dict)
    return str(json.loads(suggestion["trial"])["name"])


def reported(suggestion: object, steps: int, **figures: Any) -> dict[str, Any]:
    """Return what the trial that was suggested reports after some steps."""
    assert isinstance(suggestion, dict)
    trial = Trial(**json.loads(suggestion["trial"]))
    row = TrialResult(trial, **{"state": "stopped", "steps": steps, **figures})
    return {"row": row_text(row), "of_steps": None}


def done(suggestion: object, steps: int = 10, **figures: Any) -> dict[str, Any]:
    last = {"state": "done", "val_psnr": 25.0, "psnr": 26.0, **figures}
    return reported(suggestion, steps, **last) | {"ended": True}


def test_trials_are_handed_out_as_there_is_room_and_their_rows_kept(searcher: TuneSearcher) -> None:
    first = searcher.suggest("a")
    assert name(first) == "baseline-seed0"
    assert searcher.suggest("b") is None
    searcher.on_trial_result("a", reported(first, 4) | {"of_steps": 10})
    assert (searcher.shown.done, searcher.shown.total) == (4, 3 * 10)
    searcher.on_trial_complete("a", done(first))
    for trial_id in ("b", "c"):
        trial = searcher.suggest(trial_id)
        assert name(trial).startswith("trial-00")
        searcher.on_trial_complete(trial_id, done(trial, memory_gb=1.5))
    assert searcher.suggest("d") == Searcher.FINISHED
    rows = read_rows(searcher.folder)
    assert list(rows) == ["baseline-seed0", "trial-000", "trial-001"]
    assert rows["trial-001"].memory_gb == 1.5 and rows["trial-001"].steps == 10
    assert [line.split()[0] for line in searcher.news()] == ["[1/3]", "[2/3]", "[3/3]"]
    assert open_desk(searcher.folder.path).suggest("again") == Searcher.FINISHED


def test_of_trials_of_equal_time_the_seconds_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "claimed", lambda folder: None)
    config = change(config_of(HEADS, repeats=1), {"train.minutes": 2.0})
    manifest: Any = None
    searcher = TuneSearcher(config, Folder.at(tmp_path), 2, manifest)
    slow, fast = searcher.suggest("slow"), searcher.suggest("fast")
    searcher.on_trial_result("slow", reported(slow, 4) | {"of_steps": 16})
    searcher.on_trial_result("fast", reported(fast, 30))
    assert (searcher.shown.done, searcher.shown.total) == (30, 3 * 120)
    searcher.on_trial_complete("slow", done(slow, 16, spent_s=123.0, spent_cpu_s=60.0))
    assert searcher.shown.done == 120
    (line,) = searcher.news()
    assert "16 steps in 2.05 min (1 CPU min)" in line


def test_a_trial_that_was_asked_to_stop_is_handed_out_again(searcher: TuneSearcher) -> None:
    trial = searcher.suggest("a")
    assert name(trial) == "baseline-seed0"
    searcher.on_trial_complete("a", reported(trial, 3))
    assert read_rows(searcher.folder) == {} and searcher.trouble is None
    assert name(searcher.suggest("b")) == "baseline-seed0"


def test_trouble_of_the_cluster_ends_the_sweep_and_not_the_trial(searcher: TuneSearcher) -> None:
    trial = searcher.suggest("a")
    trouble = {"trouble": "there have been no workers for 9 s", "ended": False}
    searcher.on_trial_complete("a", reported(trial, 3) | trouble)
    assert isinstance(searcher.trouble, ResourceError) and "no workers for 9 s" in str(
        searcher.trouble
    )
    assert searcher.stopping and searcher.suggest("b") == Searcher.FINISHED
    assert read_rows(searcher.folder) == {}


def test_a_row_that_cannot_be_written_ends_the_sweep(
    searcher: TuneSearcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("no space left")

    trial = searcher.suggest("a")
    with monkeypatch.context() as away:
        away.setattr(module, "write_row", full)
        searcher.on_trial_complete("a", done(trial))
    assert "no space left" in str(searcher.trouble)
    assert searcher.suggest("b") == Searcher.FINISHED
    assert name(open_desk(searcher.folder.path).suggest("c")) == "baseline-seed0"


def test_a_trial_whose_process_is_lost_for_good_is_a_row_with_its_error(
    searcher: TuneSearcher,
) -> None:
    searcher.suggest("a")
    searcher.on_trial_complete("a", None, error=True)
    (row,) = read_rows(searcher.folder).values()
    assert row.state == "failed" and row.error is not None and "lost" in row.error
