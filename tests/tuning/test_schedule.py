"""Trials of the search are cut short where they do badly; nothing else is."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from tests.tuning.sweeps import config_of
from vrtspike.config.config import Config
from vrtspike.config.loader import change
from vrtspike.config.train import TrainSettings
from vrtspike.training.budget import Budget
from vrtspike.tuning.schedule import PastTrial, SearchOnly, scheduler_of
from vrtspike.tuning.trial_results import Trial, TrialResult, row_text

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
HEADS = {"model.spike.heads": {"grid": [1, 2, 4]}}
ASHA = {"scheduler": "asha", "grace": 0.2, "reduction": 2.0}
MEDIAN = {"scheduler": "median", "grace": 0.2}
STEPS = range(2, 11, 2)
ANY = Trial("any", "search", {}, 0)
CONTROLLER: Any = None
"""Only a scheduler that pauses trials asks it anything."""

Curve = Sequence[float]


def config(**sweep: Any) -> Config:
    """Return a sweep of 10 steps, validated every 2."""
    return change(config_of(HEADS, **sweep), {"train.validate_every": 2})


def result(step: int, value: float | None, **others: Any) -> dict[str, Any]:
    share = others.pop("share", step / 10)
    row = TrialResult(ANY, "stopped", step, value, value, loss=0.5, share=share)
    return {"row": row_text(row), "validated": True} | others


def run(scheduler: SearchOnly, name: str, curve: Curve, *, searched: bool = True) -> list[str]:
    """Let a trial run to its end, or to where it is cut short; return the decisions."""
    trial: Any = PastTrial(name)
    if searched:
        scheduler.searched.add(name)
    scheduler.on_trial_add(CONTROLLER, trial)
    decisions = []
    for step, value in zip(STEPS, curve, strict=True):
        unseen = result(step - 1, -99.0, validated=False)
        assert scheduler.on_trial_result(CONTROLLER, trial, unseen) == CONTINUE
        decisions.append(scheduler.on_trial_result(CONTROLLER, trial, result(step, value)))
        if decisions[-1] == STOP:
            return decisions
    over = result(STEPS[-1], curve[-1], validated=False, done=True)
    scheduler.on_trial_complete(CONTROLLER, trial, over)
    return decisions


def curves(count: int, seed: int) -> list[Curve]:
    """Return rising curves of trials that differ."""
    generator = random.Random(seed)
    levels = [generator.uniform(20, 26) for _ in range(count)]
    return [[level + step / 4 + generator.uniform(0, 1) for step in STEPS] for level in levels]


@pytest.mark.parametrize("sweep", [ASHA, MEDIAN])
def test_a_bad_trial_is_cut_short_and_a_good_one_is_not(sweep: dict[str, Any]) -> None:
    scheduler = scheduler_of(config(**sweep))
    for number in range(4):
        assert set(run(scheduler, f"trial-{number}", [25.0] * 5)) == {CONTINUE}
    decisions = run(scheduler, "bad", [10.0, 11.0, 12.0, 13.0, 14.0])
    assert decisions[-1] == STOP and len(decisions) < 5
    assert run(scheduler, "good", [26.0] * 5) == [CONTINUE] * 5
    assert scheduler.stopped == {"bad"}


@pytest.mark.parametrize("sweep", [ASHA, MEDIAN])
def test_nothing_is_cut_short_in_its_grace(sweep: dict[str, Any]) -> None:
    scheduler = scheduler_of(config(**sweep | {"grace": 0.6}))
    for number in range(4):
        run(scheduler, f"trial-{number}", [25.0] * 5)
    assert run(scheduler, "bad", [1.0] * 5) == [CONTINUE, CONTINUE, STOP]


@pytest.mark.parametrize("sweep", [ASHA, MEDIAN])
def test_what_is_not_of_the_search_is_never_cut_short_nor_looked_at(
    sweep: dict[str, Any],
) -> None:
    scheduler, alone = scheduler_of(config(**sweep)), scheduler_of(config(**sweep))
    for number, curve in enumerate(curves(6, seed=0)):
        for name in (f"baseline-seed{number}", f"trial-000-seed{number}"):
            for value in (1.0, 99.0):
                decisions = run(scheduler, f"{name}-{value}", [value] * 5, searched=False)
                assert decisions == [CONTINUE] * 5
        name = f"trial-{number:03d}"
        assert run(scheduler, name, curve) == run(alone, name, curve)
    assert scheduler.stopped == alone.stopped != set()


@pytest.mark.parametrize("sweep", [ASHA, MEDIAN])
def test_the_last_step_is_never_cut(sweep: dict[str, Any]) -> None:
    scheduler = scheduler_of(config(**sweep))
    for number in range(4):
        run(scheduler, f"trial-{number}", [25.0] * 5)
    # Falls behind only at the end; its best is below the others' means.
    assert run(scheduler, "late", [25.0, 25.0, 25.0, 25.0, 0.0]) == [CONTINUE] * 5
    trial: Any = PastTrial("leap")
    scheduler.searched.add("leap")
    scheduler.on_trial_add(CONTROLLER, trial)
    assert scheduler.on_trial_result(CONTROLLER, trial, result(10, 0.0)) == CONTINUE
    assert scheduler.stopped == set()


@pytest.mark.parametrize("sweep", [ASHA, ASHA | {"reduction": 3.0}, MEDIAN])
@pytest.mark.parametrize("seed", range(3))
def test_trials_of_different_steps_are_compared_at_equal_shares(
    sweep: dict[str, Any], seed: int
) -> None:
    """What is cut short, and where, is what it would be of trials of equal steps."""
    equal, unequal = scheduler_of(config(**sweep)), scheduler_of(config(**sweep))
    generator = random.Random(seed)
    for number, curve in enumerate(curves(12, seed)):
        name, decisions = f"trial-{number:03d}", run(equal, f"trial-{number:03d}", curve)
        steps = generator.choice([10, 33, 1111, 54321])
        budget = Budget(TrainSettings(steps=steps, validate_every=0.2))
        due = [done for done in range(1, steps + 1) if budget.share(done) != budget.share(done - 1)]
        trial: Any = PastTrial(name)
        unequal.searched.add(name)
        unequal.on_trial_add(CONTROLLER, trial)
        for done, value, decision in zip(due, curve, decisions, strict=False):
            figures = result(done, value, share=budget.share(done))
            assert unequal.on_trial_result(CONTROLLER, trial, figures) == decision
        if decisions[-1] != STOP:
            over = result(steps, curve[-1], share=1.0, validated=False, done=True)
            unequal.on_trial_complete(CONTROLLER, trial, over)
    assert unequal.stopped == equal.stopped != set()


def test_without_a_scheduler_nothing_is_cut_short() -> None:
    scheduler = scheduler_of(config())
    for number, curve in enumerate(curves(8, seed=1)):
        scheduler.learn(f"past-{number}", [], whole=True)
        assert run(scheduler, f"trial-{number}", curve) == [CONTINUE] * 5


@pytest.mark.parametrize("sweep", [ASHA, MEDIAN, ASHA | {"metric": "ssim"}])
@pytest.mark.parametrize("seed", range(5))
def test_a_continued_sweep_decides_as_one_that_was_not_stopped(
    sweep: dict[str, Any], seed: int
) -> None:
    made = curves(12, seed)
    whole = scheduler_of(config(**sweep))
    decisions = [run(whole, f"trial-{number}", curve) for number, curve in enumerate(made)]
    assert any(STOP in found for found in decisions)
    for known in range(len(made)):
        again = scheduler_of(config(**sweep))
        for number in range(known):
            seen = zip(STEPS, made[number], decisions[number], strict=False)
            records = [
                {"kind": "val", "share": step / 10, "psnr": value, "ssim": value}
                for step, value, _ in seen
            ]
            whole_one = STOP not in decisions[number]
            again.learn(f"trial-{number}", records, whole=whole_one)
        rest = [run(again, f"trial-{n}", made[n]) for n in range(known, len(made))]
        assert rest == decisions[known:]


@pytest.mark.parametrize("sweep", [ASHA, MEDIAN])
def test_a_validation_without_a_number_decides_nothing(sweep: dict[str, Any]) -> None:
    scheduler = scheduler_of(config(**sweep))
    unknown = {"kind": "val", "share": 0.2, "psnr": None, "ssim": None}
    unmeasured = {"kind": "val", "share": None, "psnr": 99.0, "ssim": 1.0}
    scheduler.learn("past", [unknown, unmeasured], whole=True)
    trial: Any = PastTrial("trial-000")
    scheduler.searched.add("trial-000")
    scheduler.on_trial_add(CONTROLLER, trial)
    for step in STEPS:
        assert scheduler.on_trial_result(CONTROLLER, trial, result(step, None)) == CONTINUE
    scheduler.on_trial_complete(CONTROLLER, trial, result(10, None, validated=False))
    assert set(run(scheduler, "trial-001", [25.0] * 5)) == {CONTINUE}


def test_a_trial_that_ends_before_its_first_validation_is_borne() -> None:
    scheduler = scheduler_of(config(**ASHA))
    trial: Any = PastTrial("trial-000")
    scheduler.searched.add("trial-000")
    scheduler.on_trial_add(CONTROLLER, trial)
    scheduler.on_trial_complete(CONTROLLER, trial, {"row": row_text(TrialResult(ANY, "failed"))})
    scheduler.on_trial_add(CONTROLLER, trial)
    scheduler.on_trial_remove(CONTROLLER, trial)
    assert run(scheduler, "trial-001", [25.0] * 5) == [CONTINUE] * 5


@pytest.mark.parametrize("sweep", [ASHA, MEDIAN])
def test_what_a_trial_had_passed_before_does_not_cut_it(sweep: dict[str, Any]) -> None:
    """A trial that goes on tells its validations again, after others have ended."""
    scheduler = scheduler_of(config(**sweep))
    for number in range(4):
        run(scheduler, f"trial-{number}", [25.0] * 5)
    trial: Any = PastTrial("goes-on")
    scheduler.searched.add("goes-on")
    scheduler.on_trial_add(CONTROLLER, trial)
    for step in STEPS[:3]:
        again = result(step, 20.0) | {"replayed": True}
        assert scheduler.on_trial_result(CONTROLLER, trial, again) == CONTINUE
    assert scheduler.stopped == set()
