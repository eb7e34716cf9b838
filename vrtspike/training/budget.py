"""How many steps a run takes: `train.steps`, or as many as fit into `train.minutes`.

With minutes, the first steps are measured. What a step takes (the pace) is then the same on all
ranks and in every checkpoint, and the number of steps follows from it, so a continued run takes as
many steps as one that nobody stopped. Validation and saving do not count.

Measuring ends after 15 steps and 2 % of the minutes (one minute at most), or, where steps are that
long, after a tenth of the minutes. The first four steps, in which memory is allocated and kernels
are compiled, are left out; the pace is the median of the means of five runs of steps, so neither
regular waits for data are missed nor does one stall count.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from vrtspike.config.train import TrainSettings
from vrtspike.errors import ConfigError
from vrtspike.training.meter import NO_TIME, Seconds
from vrtspike.training.rank_sync import from_first_rank

LEAST_STEPS = 15
"""Steps that are measured at least, where they do not take `MOST` of the minutes."""
START_STEPS = 4
"""Steps that are left out as those of the start."""
SHARE, LONGEST_S = 0.02, 60.0
"""Share of the minutes that is measured at least, and the seconds that are enough in any case."""
MOST = 0.1
"""Share of the minutes after which measuring ends."""
RUNS = 5
"""Runs of steps whose means the pace is the median of."""
LEAST_FITTING = 2
"""Fewest steps that are a training."""


class Budget:
    """The length of a run, from one rank's side. `pace`: what a step takes, if that is known.

    `steps` is None until the steps are measured.
    """

    def __init__(self, train: TrainSettings, pace: Seconds | None = None) -> None:
        self._train, self.pace = train, pace
        self.steps = steps_of(train, pace)
        self._measured: list[Seconds] = []
        self._spent = NO_TIME

    def add(self, took: Seconds) -> None:
        """Take in what one more step took, while the number of steps is not known."""
        if self.steps is None:
            if self._measured:
                self._spent = self._spent.plus(took)
            self._measured.append(took)

    @property
    def measured(self) -> bool:
        """Tell whether enough steps are measured for a number that there is not yet."""
        if self.steps is not None or len(self._measured) < 2:
            return False
        assert self._train.minutes is not None
        whole, spent = 60 * self._train.minutes, _by_clock(self._train, self._spent)
        if len(self._measured) >= LEAST_STEPS:
            return spent >= min(SHARE * whole, LONGEST_S)
        return spent >= MOST * whole

    def settle(self, done: int, device: torch.device) -> None:
        """Set the number of steps by what rank 0 has measured; all ranks call it, after `done`.

        Raises ConfigError, on all ranks, where the minutes are over already.
        """
        self.pace = from_first_rank(lambda: self._checked_pace(done), device=device)
        self.steps = steps_of(self._train, self.pace)
        self._measured.clear()

    def _checked_pace(self, done: int) -> Seconds:
        pace = pace_of_steps(self._measured)
        steps, least = steps_of(self._train, pace), max(done, LEAST_FITTING)
        assert steps is not None
        if steps < least:
            step_s = _by_clock(self._train, pace)
            raise ConfigError(
                "train.minutes are too few for this run",
                got=f"{self._train.minutes:g} minutes for steps of {step_s:.3g} s "
                f"(train.clock {self._train.clock})",
                expected=f"{least * step_s / 60:.2g} minutes or more, for {least} steps",
                fix="set more minutes",
            )
        return pace

    def share(self, done: int) -> float | None:
        """Return the share of the run after `done` steps; None where its length is not known.

        Where validations come by shares, it is the last of these, the same in runs of different
        lengths.
        """
        every = self._train.validate_every
        if self.steps is None:
            return None
        if done >= self.steps:
            return 1.0
        if 0 < every < 1:
            return round(math.floor(done / (every * self.steps) + 1e-9) * every, 9)
        return done / self.steps

    def is_due(self, done: int, validated: int) -> bool:
        """Tell whether the weights after `done` steps are to be validated, those of step
        `validated` being the last that were."""
        every = self._train.validate_every
        if done == 0 or every == 0:
            return False
        if every >= 1:
            return done % every == 0
        return self.share(done) != self.share(validated)


def steps_of(train: TrainSettings, pace: Seconds | None = None) -> int | None:
    """Return how many steps a run takes whose steps take `pace`; None where that is not known."""
    if train.minutes is None:
        return train.steps
    return None if pace is None else int(60 * train.minutes / _by_clock(train, pace))


def pace_in(facts: Mapping[str, Any]) -> Seconds | None:
    """Return the pace in the facts of a checkpoint, if its run had measured one."""
    pace = facts.get("pace")
    return None if pace is None else Seconds(*pace)


def pace_of_steps(steps: Sequence[Seconds]) -> Seconds:
    """Return what a step takes, by what the first steps of a run took."""
    counted = np.array(steps[START_STEPS:] or steps[1:])
    runs = np.array_split(counted, min(RUNS, len(counted)))
    wall, cpu = (statistics.median(run[:, index].mean() for run in runs) for index in (0, 1))
    return Seconds(float(wall), float(cpu))


def budget_text(train: TrainSettings) -> str:
    """Say how long a run trains."""
    if train.minutes is None:
        return f"{train.steps:,} steps"
    return f"{train.minutes:g} {'CPU ' if train.clock == 'cpu' else ''}minutes"


def _by_clock(train: TrainSettings, seconds: Seconds) -> float:
    return seconds.cpu if train.clock == "cpu" else seconds.wall
