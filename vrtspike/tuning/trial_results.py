"""What is kept of a sweep's trials: which there are, and what each came to.

    trials/<name>/trial.json     what the trial is, written before it starts
    trials/<name>/result.json    its row, written once, when it has ended

A trial without a row is not finished: a continued sweep finishes it. A row is never written again.
A trial that runs reports its row so far to Ray Tune in the same form (`row_text`, `row_of`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from vrtspike.config.config import Config
from vrtspike.config.loader import change
from vrtspike.errors import DataFormatError, one_line
from vrtspike.runs.metrics_log import Record, read_metrics
from vrtspike.storage.folder import Folder

Arm = Literal["baseline", "search", "finalist"]
State = Literal["done", "stopped", "failed"]
Note = TypeVar("Note")

TRIALS = "trials"
TRIAL, RESULT = "trial.json", "result.json"


@dataclass(frozen=True)
class Trial:
    """One training run of a sweep.

    `number` is that of the search's trial which it is, or which it repeats with another seed.
    """

    name: str
    arm: Arm
    settings: Mapping[str, Any]
    seed: int
    number: int | None = None

    def config(self, base: Config, folder: Folder) -> Config:
        """Return the trial's configuration; its run lies in the sweep's folder."""
        place = {"run.root": folder.below(TRIALS).where, "run.name": self.name}
        return change(base, {**self.settings, **place, "run.seed": self.seed, "sweep": None})


@dataclass(frozen=True)
class TrialResult:
    """What a trial came to, or would have come to if it were cut short now; a figure that it did
    not reach is None.

    `psnr`, `ssim` and `lpips` are those of the exported weights on `evaluation.split`; with `val_`
    those of the last validation, by which trials are ranked.
    """

    trial: Trial
    state: State
    steps: int = 0
    """Steps trained."""
    val_psnr: float | None = None
    val_ssim: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    lpips: float | None = None
    loss: float | None = None
    """Last training loss."""
    step_s: float | None = None
    """Seconds of a step, median."""
    memory_gb: float | None = None
    """Most memory of a worker (rank 0), in 10^9 bytes."""
    seconds: float | None = None
    """From the start of the trial, all of its attempts."""
    spent_s: float | None = None
    """Seconds that its steps took by the clock, without validation and saving."""
    spent_cpu_s: float | None = None
    """CPU time of them, in seconds: that of one worker's process (rank 0)."""
    share: float | None = None
    """Share of its run that was done at the last validation."""
    error: str | None = None

    def value(self, metric: str) -> float | None:
        """Return what the trial is ranked by."""
        found = getattr(self, figure_of(metric))
        return None if found is None else float(found)


def figure_of(metric: str) -> str:
    """Return the figure of a trial that is meant by a sweep's metric."""
    return f"val_{metric}" if metric in ("psnr", "ssim") else metric


def row_text(row: TrialResult) -> str:
    """Return a row as text, for reports: Ray Tune flattens dictionaries."""
    return json.dumps(asdict(row))


def row_of(text: str | bytes) -> TrialResult:
    """Return the row that was written so."""
    facts = json.loads(text)
    return TrialResult(**facts | {"trial": Trial(**facts["trial"])})


def folder_of(folder: Folder, name: str) -> Folder:
    """Return the run folder of one of a sweep's trials."""
    return folder.below(TRIALS).below(name)


def read_curve(folder: Folder, row: TrialResult) -> list[Record]:
    """Return what a trial's run recorded; one that is cut short goes on until it hears of it."""
    whole = row.state != "stopped"
    records = read_metrics(folder_of(folder, row.trial.name))
    return [record for record in records if whole or record["step"] <= row.steps]


def write_trial(folder: Folder, trial: Trial) -> None:
    """Note a trial before it starts."""
    _write(folder, trial.name, TRIAL, asdict(trial))


def write_row(folder: Folder, row: TrialResult) -> None:
    """Note what a trial came to."""
    _write(folder, row.trial.name, RESULT, asdict(row))


def read_trials(folder: Folder) -> list[Trial]:
    """Return the trials that were started, in the order of their names."""
    trials = folder.below(TRIALS)
    return [
        _read(trials.below(name), TRIAL, lambda text: Trial(**json.loads(text)))
        for name in trials.folders()
        if trials.below(name).size(TRIAL) is not None
    ]


def read_rows(folder: Folder) -> dict[str, TrialResult]:
    """Return the rows of the trials that have ended, by name."""
    rows = {}
    trials = folder.below(TRIALS)
    for name in trials.folders():
        if trials.below(name).size(RESULT) is not None:
            rows[name] = _read(trials.below(name), RESULT, row_of)
    return rows


def _write(folder: Folder, name: str, file: str, facts: Mapping[str, Any]) -> None:
    text = json.dumps(facts, indent=2, allow_nan=False) + "\n"
    folder_of(folder, name).write(file, text.encode())


def _read(folder: Folder, file: str, made: Callable[[bytes], Note]) -> Note:
    """Read a note and make of it what it holds."""
    try:
        return made(folder.read(file))
    except (ValueError, KeyError, TypeError) as error:
        raise DataFormatError(
            f"a trial's note is damaged: {one_line(error)}",
            where=folder.name(file),
            fix="delete the file: the trial runs again",
        ) from None
