"""Which settings the trials of a sweep have.

A search is asked for trial 0, 1, 2, ... (`suggest`; None: there are no more) and told how they did
(`tell`). Grid and random search depend on the trial's number alone; Optuna's on what it was told,
so a continued sweep tells it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import optuna

from vrtspike.config.sweep import Choice, Distribution, Integer, LogUniform, SweepSettings, Uniform
from vrtspike.errors import ConfigError, VrtSpikeError
from vrtspike.tuning.space import Settings, draw, grid, whole_numbers

MOST_DRAWS = 1000
"""Draws until a combination must have been possible."""

MOST_KNOWN = 20
"""Combinations that Optuna may ask for although it knows them, until one is tried again."""

Possible = Callable[[Mapping[str, Any]], VrtSpikeError | None]
"""Says why a combination is impossible, or None."""


class Search(Protocol):
    """Choose the settings of trials."""

    @property
    def count(self) -> int:
        """Return the number of trials."""
        ...

    def suggest(self, number: int) -> Settings | None:
        """Return the settings of a trial by its number, from 0; None: there is none."""

    def tell(self, settings: Mapping[str, Any], value: float | None) -> None:
        """Hear what a trial reached; None: it failed."""


def search_of(sweep: SweepSettings, possible: Possible) -> Search:
    """Return the search that the settings name; impossible combinations are left out."""
    match sweep.search:
        case "grid":
            return ListSearch([s for s in grid(sweep.space) if possible(s) is None])
        case "random":
            assert sweep.trials is not None
            return ListSearch(_drawn(sweep, sweep.trials, possible))
        case "optuna":
            return OptunaSearch(sweep, possible)


class ListSearch:
    """Settings that are known beforehand."""

    def __init__(self, trials: Sequence[Settings]) -> None:
        self._trials = trials
        self.count = len(trials)

    def suggest(self, number: int) -> Settings | None:
        """Return the settings of a trial."""
        return dict(self._trials[number]) if number < self.count else None

    def tell(self, settings: Mapping[str, Any], value: float | None) -> None:
        """Take note of nothing."""


def _drawn(sweep: SweepSettings, count: int, possible: Possible) -> list[Settings]:
    """Draw so many combinations, each with every possible combination of the grid keys.

    None is drawn twice; a space that has fewer of them gives all that it has.
    """
    trials: list[Settings] = []
    before: list[Settings] = []
    for number in range(count):
        random = np.random.default_rng((sweep.seed, number))
        for _ in range(MOST_DRAWS):
            drawn = draw(sweep.space, random)
            if drawn in before:
                continue
            whole = [
                {key: (fixed | drawn)[key] for key in sweep.space} for fixed in grid(sweep.space)
            ]
            found = [settings for settings in whole if possible(settings) is None]
            if found:
                trials += found
                before.append(drawn)
                break
        else:
            if trials:
                break
            raise _never_possible()
    return trials


def _never_possible() -> ConfigError:
    return ConfigError(
        "the sweep draws only impossible combinations",
        where="sweep.space",
        got=f"{MOST_DRAWS} draws",
        fix="take values out that do not go with the others",
    )


class OptunaSearch:
    """Optuna's tree-structured Parzen estimator, seeded."""

    def __init__(self, sweep: SweepSettings, possible: Possible) -> None:
        assert sweep.trials is not None
        self._space, self.count, self._possible = sweep.space, sweep.trials, possible
        self._distributions = {key: _distribution(how) for key, how in self._space.items()}
        self._direction: Literal["minimize", "maximize"] = "minimize" if sweep.cost else "maximize"
        self._seed, self._at_first = sweep.seed, min(10, max(2, sweep.trials // 3))
        self._told: list[optuna.trial.FrozenTrial] = []
        self._pending: list[dict[str, Any]] = []
        """Parameters of trials that run now."""

    def suggest(self, number: int) -> Settings | None:
        """Return settings where earlier trials did well, or, at first, anywhere."""
        if number >= self.count:
            return None
        study = self._study(number)
        known = 0
        for _ in range(MOST_DRAWS):
            asked = study.ask(self._distributions)
            settings = {key: _value(self._space[key], asked.params[key]) for key in self._space}
            before = next((t for t in self._told if t.params == asked.params), None)
            runs = asked.params in self._pending
            if self._possible(settings) is not None:
                self._learn_impossible(study, asked)
            elif (before is None and not runs) or known == MOST_KNOWN:
                self._pending.append(asked.params)
                return settings
            else:
                known += 1
                if before is not None:
                    study.tell(asked, before.value)
        raise _never_possible()

    def _learn_impossible(self, study: optuna.Study, asked: optuna.Trial) -> None:
        """Have a study ask for something else.

        After the first trials values that were never tried look best, so what is impossible has to
        count as the worst, or it would be asked for again and again.
        """
        if len(self._told) < self._at_first:
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
            return
        values = [trial.value for trial in self._told if trial.value is not None]
        study.tell(asked, max(values) if self._direction == "minimize" else min(values))

    def tell(self, settings: Mapping[str, Any], value: float | None) -> None:
        """Hear what a trial reached."""
        params = {key: _parameter(self._space[key], settings[key]) for key in self._space}
        if params in self._pending:
            self._pending.remove(params)
        if value is None or not math.isfinite(value):
            return
        self._told.append(
            optuna.trial.create_trial(params=params, distributions=self._distributions, value=value)
        )

    def _study(self, number: int) -> optuna.Study:
        """Return a study of what was told and what runs; its seed is the sweep's and the trial's
        number, so that a continued sweep does not repeat its first draws."""
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            seed = int(np.random.SeedSequence((self._seed, number)).generate_state(1)[0])
            # What runs counts as bad meanwhile, so that trials side by side differ.
            sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=self._at_first, constant_liar=True
            )
            study = optuna.create_study(sampler=sampler, direction=self._direction)
        finally:
            optuna.logging.set_verbosity(before)
        study.add_trials(self._told)
        for params in self._pending:
            study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.RUNNING,
                    params=params,
                    distributions=self._distributions,
                )
            )
        return study


def _distribution(how: Distribution) -> optuna.distributions.BaseDistribution:
    """Return Optuna's word for a distribution; choices go by their place."""
    match how:
        case Choice():
            return optuna.distributions.CategoricalDistribution(range(len(how.choice)))
        case Uniform():
            return optuna.distributions.FloatDistribution(*how.uniform)
        case LogUniform():
            return optuna.distributions.FloatDistribution(*how.log_uniform, log=True)
        case Integer():
            numbers = whole_numbers(how)
            return optuna.distributions.IntDistribution(numbers[0], numbers[-1], step=numbers.step)
    raise AssertionError("grids are refused with search optuna")


def _value(how: Distribution, parameter: Any) -> Any:
    return how.choice[parameter] if isinstance(how, Choice) else parameter


def _parameter(how: Distribution, value: Any) -> Any:
    return how.choice.index(value) if isinstance(how, Choice) else value
