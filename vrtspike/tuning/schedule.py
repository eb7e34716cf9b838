"""When a trial is cut short: by Ray Tune's schedulers, and only trials of the search.

Baselines and finalists run to their end, so that every gain is one of whole trainings. A continued
sweep tells the scheduler what finished trials had reached; a trial that goes on is not cut where it
went on before. Schedulers compare trials at equal shares of their runs, which, with
`train.minutes`, are of different steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from vrtspike.config.config import Config
from vrtspike.runs.metrics_log import Record
from vrtspike.tuning.space import sweep_of
from vrtspike.tuning.trial_results import row_of

TIME, WHOLE = "millionths", 1_000_000
"""What schedulers take for time: how far a trial is, whole numbers so that asha's multiples of the
grace meet it exactly; and what that is at its end."""


@dataclass(frozen=True)
class PastTrial:
    """A trial of an earlier start of the sweep, as far as schedulers look at it."""

    trial_id: str


class SearchOnly(FIFOScheduler):
    """Let a scheduler cut trials of the search short; all others run to their end.

    `searched` holds the ids of the trials that belong to the search; the caller adds to it.
    """

    def __init__(self, inner: TrialScheduler) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner = inner
        self.searched: set[str] = set()
        self.stopped: set[str] = set()
        """Trials that were cut short."""
        self._spared: set[str] = set()
        """Trials that went on before where they would be cut now; they run to their end."""

    def learn(self, name: str, validations: Iterable[Record], *, whole: bool) -> None:
        """Tell the scheduler of a trial that ended before this start, cut short or `whole`."""
        trial: Any = PastTrial(name)
        controller: Any = None
        self._inner.on_trial_add(controller, trial)
        last: dict[str, Any] | None = None
        for record in validations:
            seen = _looked_at(record["share"], record["psnr"], record["ssim"])
            if seen is not None:
                last = seen
                self._inner.on_trial_result(controller, trial, last)
        if whole and last is not None:
            self._inner.on_trial_complete(controller, trial, last)

    def on_trial_add(self, tune_controller: TuneController, trial: TuneTrial) -> None:
        """Hear of a new trial."""
        if trial.trial_id in self.searched:
            self._inner.on_trial_add(tune_controller, trial)

    def on_trial_result(
        self, tune_controller: TuneController, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """Decide at each validation but the last whether a trial goes on."""
        name, seen = trial.trial_id, _seen(result)
        if name not in self.searched or not result.get("validated") or seen is None:
            return str(TrialScheduler.CONTINUE)
        if name in self._spared:
            return str(TrialScheduler.CONTINUE)
        if self._inner.on_trial_result(tune_controller, trial, seen) != TrialScheduler.STOP:
            return str(TrialScheduler.CONTINUE)
        # What has come to its end is still to be scored, and what went on before goes on now.
        if seen[TIME] >= WHOLE or result.get("replayed"):
            self._spared.add(name)
            return str(TrialScheduler.CONTINUE)
        self.stopped.add(name)
        return str(TrialScheduler.STOP)

    def on_trial_complete(
        self, tune_controller: TuneController, trial: TuneTrial, result: dict[str, Any]
    ) -> None:
        """Hear that a trial has ended."""
        seen = _seen(result)
        if trial.trial_id in self.searched and seen is not None:
            self._inner.on_trial_complete(tune_controller, trial, seen)

    def on_trial_remove(self, tune_controller: TuneController, trial: TuneTrial) -> None:
        """Hear that a trial was taken back before it ran."""
        if trial.trial_id in self.searched:
            self._inner.on_trial_remove(tune_controller, trial)


def _seen(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what schedulers look at; None before there is a validation that is a number."""
    if "row" not in result:
        return None
    row = row_of(result["row"])
    return _looked_at(row.share, row.val_psnr, row.val_ssim)


def _looked_at(
    share: float | None, psnr: float | None, ssim: float | None
) -> dict[str, Any] | None:
    """Return a validation at a share of a run as schedulers take it; None: it tells nothing."""
    if share is None or psnr is None:
        return None
    return {TIME: round(share * WHOLE), "psnr": psnr, "ssim": ssim}


def scheduler_of(config: Config) -> SearchOnly:
    """Return the scheduler that a sweep's settings name."""
    sweep = sweep_of(config)
    grace = round((sweep.grace or 1.0) * WHOLE)
    inner: TrialScheduler
    match sweep.scheduler:
        case "none":
            inner = FIFOScheduler()  # type: ignore[no-untyped-call]
        case "asha":
            inner = ASHAScheduler(
                time_attr=TIME,
                metric=sweep.metric,
                mode="max",
                max_t=WHOLE,
                grace_period=grace,
                reduction_factor=sweep.reduction or 3.0,
            )
        case "median":
            inner = MedianStoppingRule(
                time_attr=TIME,
                metric=sweep.metric,
                mode="max",
                grace_period=grace,
                min_time_slice=math.inf,  # type: ignore[arg-type]  # never pause
            )
    return SearchOnly(inner)
