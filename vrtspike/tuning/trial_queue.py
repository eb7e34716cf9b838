"""Which trials a sweep runs, and in which order.

    baseline    the model without spikes, with the sweep's own configuration: first with its seed,
                later with the others (`sweep.repeats`); with each finalist's settings, too, as far
                as it has them, so that a finalist is compared with a baseline trained alike
    search      what the search suggests, all with the same seed
    finalist    the best of the search, when it is over, with the other seeds

Only trials of the search may be cut short. What has a row already is not run again. Sweeps over
what trials cost have one baseline and no finalists: their results are equal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vrtspike.config.config import Config
from vrtspike.config.loader import change, keys_with, within
from vrtspike.config.roles import SPIKES
from vrtspike.tuning.search import Search
from vrtspike.tuning.space import BASELINE, Settings, sweep_of
from vrtspike.tuning.trial_results import Trial, TrialResult


class TrialQueue:
    """Hand out the trials of a sweep; hear what they came to."""

    def __init__(
        self,
        base: Config,
        search: Search,
        *,
        begun: Iterable[Trial] = (),
        rows: Iterable[TrialResult] = (),
    ) -> None:
        self._base, self._sweep, self._search = base, sweep_of(base), search
        self._seeds = _seeds(base)
        self.rows: dict[str, TrialResult] = {}
        self._handed: set[str] = set()
        self._trials: list[Trial] = []
        """The search's, in order of their number."""
        rows = list(rows)
        # The others are what follows from these.
        self._begun = {
            trial.number: trial
            for trial in (*begun, *(row.trial for row in rows))
            if trial.arm == "search"
        }
        self._take_begun()
        for row in rows:
            self.end(row)

    def next(self) -> Trial | None:
        """Return a trial to start now; None: there is none, as yet or at all."""
        trial = self._first_open(self._first_baseline, *self._trials) or self._suggested()
        trial = trial or self._first_open(*self._rest())
        if trial is not None:
            self._handed.add(trial.name)
        return trial

    def put_back(self, trial: Trial) -> None:
        """Hear that a trial which was handed out is still to be finished."""
        self._handed.discard(trial.name)

    def end(self, row: TrialResult) -> None:
        """Hear what a trial came to."""
        self.rows[row.trial.name] = row
        if row.trial.arm == "search":
            value = None if row.state == "failed" else row.value(self._sweep.metric)
            self._search.tell(row.trial.settings, value)

    @property
    def finished(self) -> bool:
        """Tell whether every trial has ended."""
        return self._searched() and all(trial.name in self.rows for trial in self._known())

    @property
    def count(self) -> int:
        """Return how many trials there will be; an estimate until the search is over."""
        if self._searched():
            # Rows of earlier finalists stay when a sweep goes on with more trials.
            return len({trial.name for trial in self._known()} | self.rows.keys())
        searched = max(self._search.count, len(self._trials))
        finalists = 0 if self._sweep.cost else min(self._sweep.finalists, searched)
        seeds = len(self._seeds)
        spikes = keys_with(SPIKES)
        own_baseline = not all(within(key, spikes) for key in self._sweep.space)
        return seeds + searched + finalists * (seeds - 1 + own_baseline * seeds)

    @property
    def _first_baseline(self) -> Trial:
        return next(self._baselines("baseline", BASELINE, self._seeds))

    def _known(self) -> Iterator[Trial]:
        """Yield the trials that are known by now."""
        yield self._first_baseline
        yield from self._trials
        yield from self._rest()

    def _rest(self) -> Iterator[Trial]:
        """Yield the trials that follow those of the search, as far as they are known."""
        yield from self._baselines("baseline", BASELINE, self._seeds[1:])
        if not self._searched():
            return
        alike = [BASELINE]
        for finalist in self.finalists():
            name, settings = finalist.trial.name, finalist.trial.settings
            for seed in self._seeds[1:]:
                number = finalist.trial.number
                yield Trial(f"{name}-seed{seed}", "finalist", settings, seed, number)
            own = baseline_of(self._base, settings)
            if own not in alike:
                alike.append(own)
                yield from self._baselines(f"baseline-{_digest(own)}", own, self._seeds)

    def _baselines(self, name: str, settings: Settings, seeds: Iterable[int]) -> Iterator[Trial]:
        """Yield a baseline with some seeds."""
        for seed in seeds:
            yield Trial(f"{name}-seed{seed}", "baseline", settings, seed)

    def _first_open(self, *trials: Trial) -> Trial | None:
        """Return the first trial that neither runs nor has a row."""
        for trial in trials:
            if trial.name not in self._handed and trial.name not in self.rows:
                return trial
        return None

    def _suggested(self) -> Trial | None:
        """Return the search's next trial, if it has one."""
        number = len(self._trials)
        settings = self._search.suggest(number)
        if settings is None:
            return None
        trial = Trial(f"trial-{number:03d}", "search", settings, self._seeds[0], number)
        self._trials.append(trial)
        self._take_begun()
        return trial

    def _take_begun(self) -> None:
        """Take up the trials of an earlier start that are next by their number."""
        while len(self._trials) in self._begun:
            self._trials.append(self._begun[len(self._trials)])

    def _searched(self) -> bool:
        """Tell whether the search is over."""
        ended = all(trial.name in self.rows for trial in self._trials)
        return ended and len(self._trials) >= self._search.count

    def finalists(self) -> list[TrialResult]:
        """Return the best whole trials of the search, best first."""
        if self._sweep.cost:
            return []
        metric = self._sweep.metric
        rows = [self.rows[trial.name] for trial in self._trials if trial.name in self.rows]
        whole = [row for row in rows if row.state == "done" and row.value(metric) is not None]
        best: list[TrialResult] = []
        for row in sorted(whole, key=lambda row: -(row.value(metric) or 0)):
            if all(row.trial.settings != other.trial.settings for other in best):
                best.append(row)
        return best[: self._sweep.finalists]


def baseline_of(base: Config, settings: Mapping[str, Any]) -> Settings:
    """Return the settings of the baseline that is trained like a trial, as far as it can be.

    `BASELINE` where the trial changes nothing that the model without spikes has too.
    """
    spikes = keys_with(SPIKES)
    own = {key: value for key, value in settings.items() if not within(key, spikes)}
    if change(base, own | BASELINE) == change(base, BASELINE):
        return BASELINE
    return own | BASELINE


def _digest(settings: Settings) -> str:
    """Return a short name of some settings, the same at each start of a sweep."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _seeds(base: Config) -> list[int]:
    """Return the seeds of the repeats; the first is the search's."""
    sweep = sweep_of(base)
    return list(range(base.run.seed, base.run.seed + (1 if sweep.cost else sweep.repeats)))
