"""A run of so many minutes: when it has measured enough, how many steps fit, and when is validated.

Steps here take what the test says; what real ones take is in `tests/ray/test_training.py`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from vrtspike.config.train import TrainSettings
from vrtspike.errors import ConfigError
from vrtspike.training.budget import Budget, budget_text, pace_in, pace_of_steps, steps_of
from vrtspike.training.meter import NO_TIME, Seconds, StepClock

CPU = torch.device("cpu")


def train(**settings: Any) -> TrainSettings:
    return TrainSettings.model_validate({"gpu": False, **settings})


def measured_after(budget: Budget, steps: Sequence[float]) -> int:
    """Tell a budget of steps, of twice the CPU time, until it has enough; return how many."""
    for count, wall in enumerate(steps, 1):
        budget.add(Seconds(wall, 2 * wall))
        if budget.measured:
            return count
    raise AssertionError(f"{len(steps)} steps are not enough")


def settled(step_s: float, **settings: Any) -> Budget:
    """Return the budget of a run whose steps all took as long."""
    budget = Budget(train(**settings))
    done = measured_after(budget, [step_s] * 100_000)
    budget.settle(done, CPU)
    return budget


def test_without_minutes_the_steps_are_those_that_are_set() -> None:
    budget = Budget(train(steps=7))
    budget.add(Seconds(1e6, 1e6))
    assert (budget.steps, budget.measured, budget.pace) == (7, False, None)
    assert steps_of(train(steps=7), Seconds(1.0, 1.0)) == 7


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("step_s", [0.003, 0.05, 0.7, 4.0, 7.0])
@pytest.mark.parametrize("minutes", [0.5, 8.0, 600.0])
def test_as_many_steps_as_fit(step_s: float, minutes: float) -> None:
    for clock, times in (("wall", 1), ("cpu", 2)):
        budget = settled(step_s, minutes=minutes, clock=clock)
        assert budget.steps is not None and budget.pace is not None
        assert budget.pace == pytest.approx((step_s, 2 * step_s))
        taken = budget.steps * step_s * times
        assert minutes * 60 - step_s * times <= taken + 1e-6 <= minutes * 60 + 1e-5


@pytest.mark.parametrize(
    ("step_s", "minutes", "count"),
    [
        # 15 steps are more than 2 % of the minutes, and less than a tenth of them.
        (0.5, 5.0, 15),
        # 2 % of ten minutes are 12 s, after a first step that does not count.
        (0.1, 10.0, 121),
        # A minute is enough in any case.
        (1.0, 600.0, 61),
        # A tenth of the minutes are 6 s; one step that counts is the least.
        (2.0, 1.0, 4),
        (20.0, 1.0, 2),
    ],
)
def test_how_long_is_measured(step_s: float, minutes: float, count: int) -> None:
    # In binary a tenth of something may be an ulp off.
    assert measured_after(Budget(train(minutes=minutes)), [step_s] * 1000) in (count, count + 1)


def test_neither_the_start_nor_a_stall_counts_but_waits_that_return_do() -> None:
    slow_start = [Seconds(9.0, 9.0)] * 4 + [Seconds(1.0, 2.0)] * 11
    assert pace_of_steps(slow_start) == (1.0, 2.0)
    stalled = [*slow_start[:-3], Seconds(60.0, 2.0), *slow_start[-2:]]
    assert pace_of_steps(stalled) == (1.0, 2.0)
    # Every fourth step waits for data: the median of single steps would not know.
    bursts = slow_start[:4] + [Seconds(5.0 if i % 4 == 3 else 1.0, 2.0) for i in range(80)]
    assert pace_of_steps(bursts) == (2.0, 2.0)
    assert pace_of_steps([Seconds(9.0, 9.0), Seconds(2.0, 3.0)]) == (2.0, 3.0)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("minutes", [0.31, 7.77])
def test_a_continued_run_takes_as_many_steps(minutes: float) -> None:
    """What a checkpoint holds is JSON."""
    generator = random.Random(0)
    for clock in ("wall", "cpu"):
        settings = train(minutes=minutes, clock=clock)
        whole = Budget(settings)
        done = measured_after(whole, [generator.uniform(0.05, 0.4) for _ in range(1000)])
        assert whole.steps is None and whole.share(done) is None
        whole.settle(done, CPU)
        facts = json.loads(json.dumps({"pace": whole.pace, "steps": whole.steps}))
        continued = Budget(settings, pace_in(facts))
        assert continued.steps == whole.steps == facts["steps"]
        # It has nothing to measure, whatever its steps take now.
        for _ in range(1000):
            continued.add(Seconds(99.0, 99.0))
        assert not continued.measured and continued.steps == whole.steps
        longer = train(minutes=2 * minutes, clock=clock)
        assert steps_of(longer, continued.pace) in (2 * facts["steps"], 2 * facts["steps"] + 1)


def test_a_checkpoint_from_before_the_steps_were_measured_has_no_pace() -> None:
    assert pace_in({"pace": None}) is pace_in({}) is None
    assert Budget(train(minutes=1.0), pace_in({})).steps is None


@pytest.mark.usefixtures("alone")
def test_minutes_in_which_no_training_fits_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"too few.*got 0\.05 minutes for steps of 2 s") as error:
        settled(2.0, minutes=0.05)
    assert "expected 0.067 minutes or more, for 2 steps" in str(error.value)
    assert "\n" not in str(error.value)
    # A run that is continued at step 90 with minutes that were over at step 30.
    budget = Budget(train(minutes=0.5))
    budget.add(Seconds(5.0, 5.0))
    budget.add(Seconds(1.0, 1.0))
    with pytest.raises(ConfigError, match="for 90 steps"):
        budget.settle(90, CPU)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 37, 1111, 240])
@pytest.mark.parametrize("every", [0.2, 0.25, 0.3, 0.1, 0.07])
def test_validations_by_shares_are_at_the_same_shares_whatever_the_steps(
    steps: int, every: float
) -> None:
    budget = Budget(train(steps=steps, validate_every=every))
    validated, shares = 0, []
    for done in range(1, steps + 1):
        if budget.is_due(done, validated) or done == steps:
            share = budget.share(done)
            assert share is not None
            # As soon as the share is reached, and not before.
            assert share <= done / steps + 1e-9
            assert done == steps or share > (done - 1) / steps - 1e-9
            validated = done
            shares.append(share)
    expected = [round(k * every, 9) for k in range(1, 100) if k * every < 1 - 1e-9] + [1.0]
    # Of a run of a few steps some coincide.
    apart = min(every, 1 - expected[-2]) * steps >= 1 - 1e-9
    assert shares == expected if apart else set(shares) <= set(expected)
    assert shares[-1] == 1.0


def test_validations_by_steps_do_not_depend_on_the_length() -> None:
    budget = Budget(train(minutes=1.0, validate_every=3))
    due = [done for done in range(10) if budget.is_due(done, 0)]
    assert due == [3, 6, 9] and budget.share(3) is None
    assert not any(Budget(train(validate_every=0)).is_due(done, 0) for done in range(10))


@pytest.mark.usefixtures("alone")
def test_a_share_that_went_by_while_steps_were_measured_is_validated_then() -> None:
    budget = Budget(train(minutes=1.0, validate_every=0.05))
    done = measured_after(budget, [2.0] * 9)
    assert not budget.is_due(done, 0)
    budget.settle(done, CPU)
    assert (done, budget.steps) == (4, 30)
    assert budget.is_due(done, 0) and not budget.is_due(done, done)
    assert budget.share(done) == 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minutes": 0}, "greater than 0"),
        ({"minutes": -1}, "greater than 0"),
        ({"minutes": float("inf")}, "finite"),
        ({"clock": "cpu", "gpu": True}, "what a GPU does takes no CPU time"),
        ({"validate_every": 1.5}, "neither a whole number nor a share below 1"),
        ({"validate_every": -0.1}, "greater than or equal to 0"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        train(**settings)


def test_budgets_are_said() -> None:
    assert budget_text(train(steps=1200)) == "1,200 steps"
    assert budget_text(train(minutes=8)) == "8 minutes"
    assert budget_text(train(minutes=2.5, clock="cpu")) == "2.5 CPU minutes"


def test_a_clock_counts_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = NO_TIME
    monkeypatch.setattr(Seconds, "now", lambda: now)
    batches: Any = type("Batches", (), {"waited": 0.0})()
    clock = StepClock(batches, Seconds(100.0, 50.0))
    for wall, cpu, pause in ((1.0, 3.0, 7.0), (2.0, 4.0, 0.0)):
        clock.resume()
        now = now.plus(Seconds(wall, cpu))
        assert clock.step() == (wall, cpu)
        now = now.plus(Seconds(pause, pause))
    assert clock.spent == (103.0, 57.0)
    assert clock.take()[:2] == (2, 3.0) and clock.spent == (103.0, 57.0)
