"""What is kept of trials comes back as it was; a damaged note is one line."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tuning.sweeps import config_of, row, spikes_sweep
from vrtspike.config.loader import change
from vrtspike.errors import DataFormatError
from vrtspike.runs.folder import run_folder
from vrtspike.storage.folder import Folder
from vrtspike.tuning.trial_results import (
    RESULT,
    TRIAL,
    TRIALS,
    Trial,
    TrialResult,
    read_rows,
    read_trials,
    write_row,
    write_trial,
)

SETTINGS = {"model.window": [2, 8, 8], "train.lr": 1.23456789e-4, "data.tile": None}
FIRST = Trial("trial-000", "search", SETTINGS, 7, 0)
PLAIN = Trial("baseline-seed7", "baseline", {"model.fusion": "none"}, 7)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.at(tmp_path / "sweep")


def test_trials_and_rows_come_back_as_they_were(folder: Folder) -> None:
    assert read_trials(folder) == [] and read_rows(folder) == {}
    rows = (
        TrialResult(PLAIN, "done", 10, 25.0, 0.8, 26.0, 0.9, 0.1, 0.01, 0.5, 1.25, 99.0),
        TrialResult(FIRST, "failed", 3, error="ValueError: é"),
    )
    for found in rows:
        write_trial(folder, found.trial)
        write_row(folder, found)
    assert read_trials(folder) == [PLAIN, FIRST]
    assert read_rows(folder) == {found.trial.name: found for found in rows}


def test_a_trial_that_was_begun_has_no_row(folder: Folder) -> None:
    write_trial(folder, FIRST)
    (folder.path / TRIALS / "trial-001").mkdir()
    (folder.path / TRIALS / ".hidden").mkdir()
    assert read_trials(folder) == [FIRST] and read_rows(folder) == {}


def test_rows_of_a_whole_sweep_come_back(folder: Folder) -> None:
    rows = spikes_sweep().rows
    for found in rows:
        write_row(folder, found)
    assert read_rows(folder) == {found.trial.name: found for found in rows}


@pytest.mark.parametrize("file", [TRIAL, RESULT])
@pytest.mark.parametrize(
    "damage", [b"", b"\xff\xfe", b"[]", b"{}", b'{"trial": {"name": 1}}', None]
)
def test_a_damaged_note_is_one_line_that_names_it(
    folder: Folder, file: str, damage: bytes | None
) -> None:
    write_trial(folder, FIRST)
    write_row(folder, TrialResult(FIRST, "done"))
    path = folder.path / TRIALS / FIRST.name / file
    path.write_bytes(path.read_bytes()[:-40] if damage is None else damage)
    with pytest.raises(DataFormatError, match="a trial's note is") as caught:
        (read_trials if file == TRIAL else read_rows)(folder)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and "the trial runs again" in message


def test_a_number_that_json_does_not_have_is_not_written(folder: Folder) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_row(folder, TrialResult(FIRST, "done", psnr=math.nan))
    assert read_rows(folder) == {}


def test_a_row_is_ranked_by_the_validation_or_by_its_cost() -> None:
    found = row(
        "trial-000", {}, psnr=1.0, ssim=2.0, val_psnr=3.0, val_ssim=4.0, step_s=5.0, memory_gb=6.0
    )
    values = {m: found.value(m) for m in ("psnr", "ssim", "step_s", "memory_gb")}
    assert values == {"psnr": 3.0, "ssim": 4.0, "step_s": 5.0, "memory_gb": 6.0}
    assert replace(found, val_psnr=None).value("psnr") is None


def test_a_trials_run_lies_in_the_sweep_and_has_its_settings(folder: Folder) -> None:
    base = config_of({"train.lr": {"grid": [1e-3, 2e-3]}})
    config = FIRST.config(base, folder)
    assert run_folder(config.run).path == folder.path / TRIALS / "trial-000"
    assert (config.model.window, config.train.lr, config.run.seed) == ((2, 8, 8), 1.23456789e-4, 7)
    assert config.sweep is None and config.data == base.data
    plain = PLAIN.config(base, folder)
    assert plain.model == base.model.model_copy(update={"fusion": "none"})
    assert plain.train == base.train and plain.loss == base.loss


def test_a_trials_run_keeps_the_keys_of_the_store() -> None:
    root = "s3://key:se/cret@bucket/runs?region=x"
    base = change(config_of({"train.lr": {"grid": [1e-3, 2e-3]}}), {"run.root": root})
    config = FIRST.config(base, run_folder(base.run))
    where = run_folder(config.run).where
    assert where == f"s3://key:se/cret@bucket/runs/heads/{TRIALS}/trial-000?region=x"
