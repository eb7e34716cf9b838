"""What the rows of a sweep say: gains over the baseline with their spread, the best, what is left.

A gain is the PSNR of a trial (or the mean over its seeds) minus the mean over the seeds of a
baseline: the sweep's own, or, for a finalist's result, the one that was trained alike. Its spread
is the standard error of that difference; a single run is taken to vary as much as the repeated
ones. Trials are ranked by the validation split, gains are those of `evaluation.split`; where that
is another one, the best is not chosen by the number that is reported.

Settings that change cost and not results are ranked by cost; their losses must be equal, step by
step, to those of the sweep's first trial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from vrtspike.config.config import Config
from vrtspike.runs.metrics_log import Record
from vrtspike.storage.folder import Folder
from vrtspike.tuning.space import BASELINE, Settings, sweep_of
from vrtspike.tuning.trial_queue import baseline_of
from vrtspike.tuning.trial_results import TrialResult, figure_of, read_curve, read_rows

EQUAL_LOSS = {"float32": 1e-3, "bfloat16": 3e-2}
"""Greatest relative difference of losses that count as equal: rounding, grown over the steps."""
ARMS = ("baseline", "search", "finalist")


@dataclass(frozen=True)
class TrialGain:
    """A difference in dB, and its standard error; None: nothing was repeated."""

    value: float
    spread: float | None


@dataclass(frozen=True)
class Final:
    """The runs of one combination of settings with all their seeds, and their baselines."""

    settings: Settings
    rows: tuple[TrialResult, ...]
    baselines: tuple[TrialResult, ...]

    @property
    def gain(self) -> TrialGain | None:
        """Return what the combination gains over its baseline."""
        return gain_over(self.rows, self.baselines)


@dataclass(frozen=True)
class Summary:
    """A sweep's rows and curves, and what follows from them."""

    config: Config
    rows: tuple[TrialResult, ...]
    """Of all trials that have ended: baselines, then the search in its order, then finalists."""
    curves: Mapping[str, Sequence[Record]]
    """Records `train` and `val` of every run, by the trial's name."""
    expected: int
    """Number of trials that the sweep has."""

    @property
    def cost(self) -> bool:
        """Tell whether trials are ranked by cost."""
        return sweep_of(self.config).cost

    @property
    def searched(self) -> list[TrialResult]:
        """Return the rows of the search."""
        return [row for row in self.rows if row.trial.arm == "search"]

    @property
    def baselines(self) -> list[TrialResult]:
        """Return the baselines that came to their end."""
        return [row for row in self.rows if row.trial.arm == "baseline" and row.state == "done"]

    @property
    def failed(self) -> list[TrialResult]:
        """Return the trials that failed."""
        return [row for row in self.rows if row.state == "failed"]

    @property
    def missing(self) -> str | None:
        """Say what the sweep lacks, if anything."""
        if not self.reference:
            return "there is no result of the baseline"
        if len(self.rows) < self.expected:
            return f"{self.expected - len(self.rows)} of {self.expected} trials have not ended"
        best = self.best
        if best is None:
            return "no trial came to its end"
        alike = baseline_of(self.config, best.settings)
        wanted = sweep_of(self.config).finalists and not self.cost
        if wanted and all(dict(row.trial.settings) != alike for row in best.baselines):
            return "there is no result of the baseline that is trained like the best"
        return None

    @property
    def same_split(self) -> bool:
        """Tell whether the best is chosen by the frames that its figures are from."""
        return not self.cost and self.config.data.val_split == self.config.evaluation.split

    @property
    def problems(self) -> list[str]:
        """Say what keeps the sweep's answer from being whole, a line each."""
        found = [] if self.missing is None else [f"incomplete: {self.missing}"]
        found += [f"{row.trial.name} failed: {row.error}" for row in self.failed]
        return found + [
            f"{name}: its losses are not those of the first trial (by {difference:.2g})"
            for name, difference in self.loss_differences.items()
            if not self._is_equal(difference)
        ]

    @property
    def reference(self) -> list[TrialResult]:
        """Return the runs of the sweep's own baseline, the sweep's own seed first."""
        return self._baselines_of({})

    def gain(self, *rows: TrialResult) -> TrialGain | None:
        """Return what one trial, or the runs of one combination, gain over the sweep's own
        baseline; a finalist's gain over a baseline trained alike is `Final.gain`."""
        if self.cost or any(row.trial.arm == "baseline" for row in rows):
            return None
        return gain_over(rows, self.reference)

    def val_gain(self, row: TrialResult) -> float | None:
        """Return the gain in the last validation of a trial, which may be cut short, over the
        baseline of the sweep's own seed at the same share of its run."""
        at = {
            record["share"]: record["psnr"]
            for base in self.reference
            if base.trial.seed == self.config.run.seed
            for record in self.curves.get(base.trial.name, ())
            if record["kind"] == "val" and record["psnr"] is not None
        }
        # One that failed may have gone on after its last validation.
        if row.trial.arm == "baseline" or row.val_psnr is None or row.state == "failed":
            return None
        return float(row.val_psnr - at[row.share]) if row.share in at else None

    @cached_property
    def finals(self) -> list[Final]:
        """Return the combinations that were trained with several seeds, best first; without such,
        the trials of the search that came to their end."""
        figure = figure_of(sweep_of(self.config).metric)
        repeated = {row.trial.number for row in self.rows if row.trial.arm == "finalist"}
        groups = []
        for first in self.searched:
            number = first.trial.number
            rows = tuple(r for r in self.rows if r.trial.number == number and r.state == "done")
            known = rows and all(getattr(row, figure) is not None for row in rows)
            if known and (number in repeated or not repeated):
                settings = dict(first.trial.settings)
                groups.append(Final(settings, rows, tuple(self._baselines_of(settings))))
        sign = 1 if self.cost else -1
        return sorted(groups, key=lambda final: sign * (mean_of(final.rows, figure) or 0.0))

    @property
    def best(self) -> Final | None:
        """Return the best combination."""
        equal = (final for final in self.finals if not self.cost or self.equal(final.rows[0]))
        return next(equal, None)

    @cached_property
    def loss_differences(self) -> dict[str, float]:
        """Return the greatest relative difference of each trial's losses to the first one's, by the
        trial's name (of a sweep over cost)."""
        losses = {
            row.trial.name: pd.Series(_losses(self.curves.get(row.trial.name, ())), dtype=float)
            for row in self.searched
            if row.state == "done" and self.cost
        }
        reference = next(iter(losses.values()), pd.Series(dtype=float))
        return {
            name: float(
                (found.reindex(reference.index) / reference - 1).abs().fillna(math.inf).max()
            )
            if len(reference)
            else math.inf
            for name, found in losses.items()
        }

    def equal(self, row: TrialResult) -> bool:
        """Tell whether a trial's losses are those of the first trial."""
        return self._is_equal(self.loss_differences.get(row.trial.name, math.inf))

    def _is_equal(self, difference: float) -> bool:
        return difference <= EQUAL_LOSS[self.config.train.precision]

    def _baselines_of(self, settings: Mapping[str, object]) -> list[TrialResult]:
        """Return the baselines trained like a trial; the sweep's own where there are none."""
        own = baseline_of(self.config, settings)
        alike = [row for row in self.baselines if dict(row.trial.settings) == own]
        return alike or [row for row in self.baselines if dict(row.trial.settings) == BASELINE]


def read_summary(config: Config, folder: Folder, expected: int) -> Summary:
    """Read what a sweep's folder holds."""
    rows = sorted(
        read_rows(folder).values(),
        key=lambda row: (
            ARMS.index(row.trial.arm),
            row.trial.number or 0,
            row.trial.name.rpartition("-seed")[0],
            row.trial.seed,
        ),
    )
    curves = {row.trial.name: read_curve(folder, row) for row in rows}
    return Summary(config, tuple(rows), curves, expected)


def mean_of(rows: Sequence[TrialResult], figure: str) -> float | None:
    """Return the mean of one of the rows' figures, of those that have it."""
    found = pd.Series([getattr(row, figure) for row in rows], dtype=float).dropna()
    return float(found.mean()) if len(found) else None


def gain_over(rows: Sequence[TrialResult], baselines: Sequence[TrialResult]) -> TrialGain | None:
    """Return the mean PSNR of some runs over that of others, with its standard error."""
    runs = [(0, row.psnr) for row in rows] + [(1, row.psnr) for row in baselines]
    sides = pd.DataFrame(runs, columns=["side", "psnr"], dtype=float).dropna().groupby("side").psnr
    if len(sides) < 2:
        return None
    mean, variance, count = sides.mean(), sides.var(), sides.count()
    spread = None
    if variance.notna().any():
        spread = math.sqrt((variance.fillna(variance.max()) / count).sum())
    return TrialGain(float(mean[0] - mean[1]), spread)


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names of the points (cost, gain) that no other point beats in both."""
    return [
        name
        for name, (cost, gain) in points.items()
        if not any(
            other_cost <= cost and other_gain >= gain and (other_cost, other_gain) != (cost, gain)
            for other_cost, other_gain in points.values()
        )
    ]


def _losses(records: Sequence[Record]) -> dict[int, float]:
    """Return the training losses by step."""
    return {
        record["step"]: record["loss"]
        for record in records
        if record["kind"] == "train" and record["loss"]
    }
