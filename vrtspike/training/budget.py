"""How many steps a run takes: `train.steps`, or as many as fit into `train.minutes`.

With `train.minutes`, the first steps are timed. The time of one step (the pace) is shared by all
ranks and stored in every checkpoint. The number of steps follows from it, so a continued run takes
as many steps as an uninterrupted one. Validation and saving do not count.

Timing ends after at least 15 steps that took 2 % of the minutes (or one minute, if that is less).
If steps are long, it ends after 10 % of the minutes. The first four steps, which allocate memory
and compile kernels, are left out. The timed steps are divided into five groups, and the pace is the
median of the groups' means: this includes regular waits for data and ignores a single stall.
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
"""Fewest steps to time, unless they take `MOST` of the minutes."""
START_STEPS = 4
"""Steps at the start that do not count for the pace."""
SHARE, LONGEST_S = 0.02, 60.0
"""Share of the minutes to time, and the seconds that are always enough."""
MOST = 0.1
"""Share of the minutes after which timing always ends."""
RUNS = 5
"""Groups of consecutive steps; the pace is the median of their means."""
LEAST_FITTING = 2
"""Fewest steps of a run."""


class Budget:
    """The length of a run, as one rank knows it.

    `pace` is the time of one step, or None while it is unknown. `steps` is the number of steps of
    the run, or None until the pace is known.
    """

    def __init__(self, train: TrainSettings, pace: Seconds | None = None) -> None:
        self._train, self.pace = train, pace
        self.steps = steps_of(train, pace)
        self._measured: list[Seconds] = []
        self._spent = NO_TIME

    def add(self, took: Seconds) -> None:
        """Add the time of one step; does nothing once the number of steps is known."""
        if self.steps is None:
            if self._measured:
                self._spent = self._spent.plus(took)
            self._measured.append(took)

    @property
    def measured(self) -> bool:
        """Whether the number of steps is still unknown and enough steps are timed to set it."""
        if self.steps is not None or len(self._measured) < 2:
            return False
        assert self._train.minutes is not None
        whole, spent = 60 * self._train.minutes, _by_clock(self._train, self._spent)
        if len(self._measured) >= LEAST_STEPS:
            return spent >= min(SHARE * whole, LONGEST_S)
        return spent >= MOST * whole

    def settle(self, done: int, device: torch.device) -> None:
        """Set the number of steps from rank 0's timing; all ranks call it after `done` steps.

        Raises ConfigError on all ranks if the minutes are already over.
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
        """Return which fraction of the run `done` steps are; None while its length is unknown.

        If `train.validate_every` is a fraction, the result is rounded down to a multiple of it, so
        that runs of different lengths are validated at the same fractions.
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
        """Whether to validate the weights after `done` steps; `validated` is the step of the last
        validation."""
        every = self._train.validate_every
        if done == 0 or every == 0:
            return False
        if every >= 1:
            return done % every == 0
        return self.share(done) != self.share(validated)


def steps_of(train: TrainSettings, pace: Seconds | None = None) -> int | None:
    """Return the number of steps of a run; None if it depends on a `pace` that is unknown."""
    if train.minutes is None:
        return train.steps
    return None if pace is None else int(60 * train.minutes / _by_clock(train, pace))


def pace_in(facts: Mapping[str, Any]) -> Seconds | None:
    """Return the pace stored in a checkpoint's facts, or None."""
    pace = facts.get("pace")
    return None if pace is None else Seconds(*pace)


def pace_of_steps(steps: Sequence[Seconds]) -> Seconds:
    """Return the pace from the times of the first steps of a run."""
    counted = np.array(steps[START_STEPS:] or steps[1:])
    runs = np.array_split(counted, min(RUNS, len(counted)))
    wall, cpu = (statistics.median(run[:, index].mean() for run in runs) for index in (0, 1))
    return Seconds(float(wall), float(cpu))


def budget_text(train: TrainSettings) -> str:
    """Return the length of a run for people: "1,000 steps" or "20 CPU minutes"."""
    if train.minutes is None:
        return f"{train.steps:,} steps"
    return f"{train.minutes:g} {'CPU ' if train.clock == 'cpu' else ''}minutes"


def _by_clock(train: TrainSettings, seconds: Seconds) -> float:
    return seconds.cpu if train.clock == "cpu" else seconds.wall
