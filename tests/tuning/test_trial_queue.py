"""A sweep's trials: which, in which order, and what is left of them when it goes on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from tests.tuning.sweeps import config_of
from vrtspike.config.config import Config
from vrtspike.config.loader import change
from vrtspike.tuning.search import search_of
from vrtspike.tuning.space import sweep_of
from vrtspike.tuning.trial_queue import TrialQueue, baseline_of
from vrtspike.tuning.trial_results import State, Trial, TrialResult

PLAIN = {"model.fusion": "none"}
HEADS = {"model.spike.heads": {"grid": [1, 2, 4]}}
RATES = {"train.lr": {"grid": [1e-3, 2e-3]}}
DRAWN = {"model.spike.heads": {"choice": [1, 2]}, "train.lr": {"log_uniform": [1e-4, 1e-2]}}
OPTUNA: dict[str, Any] = {"search": "optuna", "trials": 7}

Verdict = Callable[[Trial], TrialResult]


def queue_of(
    config: Config, begun: Iterable[Trial] = (), rows: Iterable[TrialResult] = ()
) -> TrialQueue:
    search = search_of(sweep_of(config), lambda settings: None)
    return TrialQueue(config, search, begun=begun, rows=rows)


def done(trial: Trial, state: State = "done", value: float | None = None) -> TrialResult:
    """Return a row: more heads and higher rates are better."""
    rate = 100 * trial.settings.get("train.lr", 0.0)
    found = trial.settings.get("model.spike.heads", 0) + rate + trial.seed / 1000
    value = found if value is None else value
    return TrialResult(trial, state, 10, val_psnr=value, psnr=value, step_s=value)


def simulate(
    trial_queue: TrialQueue,
    verdict: Verdict = done,
    *,
    seed: int = 0,
    most: int = 1,
    stop: int = 10**6,
) -> list[Trial]:
    """Run a queue's trials, at most so many at a time; return them in the order of their
    start.

    Ends without their rows those that run when so many have ended.
    """
    order, running, ended = random.Random(seed), list[Trial](), 0
    started: list[Trial] = []
    while ended < stop:
        while len(running) < most and (trial := trial_queue.next()) is not None:
            running.append(trial)
            started.append(trial)
            assert len(trial_queue.rows) + len(running) <= trial_queue.count
        if not running:
            assert trial_queue.finished
            return started
        assert not trial_queue.finished
        trial_queue.end(verdict(running.pop(order.randrange(len(running)))))
        ended += 1
    return started


def names(trials: Iterable[Trial]) -> list[str]:
    return [trial.name for trial in trials]


def test_the_baseline_is_first_then_the_search_then_the_other_seeds() -> None:
    trials = simulate(queue_of(config_of(HEADS, repeats=3)))
    assert names(trials) == [
        "baseline-seed0",
        *("trial-000", "trial-001", "trial-002"),
        *("baseline-seed1", "baseline-seed2"),
        *("trial-002-seed1", "trial-002-seed2"),
    ]
    assert [trial.seed for trial in trials] == [0, 0, 0, 0, 1, 2, 1, 2]
    arms = [trial.arm for trial in trials]
    assert arms == ["baseline", *["search"] * 3, *["baseline"] * 2, *["finalist"] * 2]
    assert [trial.number for trial in trials] == [None, 0, 1, 2, None, None, 2, 2]
    assert all(trial.settings == PLAIN for trial in trials if trial.arm == "baseline")
    assert all(trial.settings == trials[3].settings for trial in trials[-2:])


def test_seeds_count_from_the_runs() -> None:
    config = change(config_of(HEADS, repeats=2), {"run.seed": 7})
    trials = simulate(queue_of(config))
    assert [trial.seed for trial in trials] == [7, 7, 7, 7, 8, 8]
    assert trials[0].name == "baseline-seed7"


def test_finalists_are_whole_trials_by_validation_best_first() -> None:
    def verdict(trial: Trial) -> TrialResult:
        match trial.name:
            case "trial-000":
                return done(trial, "stopped", 99.0)
            case "trial-001":
                return done(trial, "failed", 98.0)
            case "trial-002":
                return TrialResult(trial, "done", 10, psnr=97.0)
        return done(trial)

    space = {"model.spike.heads": {"grid": [1, 2, 4, 8, 16]}}
    trial_queue = queue_of(config_of(space, repeats=2, finalists=9))
    trials = simulate(trial_queue, verdict)
    assert [row.trial.name for row in trial_queue.finalists()] == ["trial-004", "trial-003"]
    assert names(trials)[-2:] == ["trial-004-seed1", "trial-003-seed1"]
    assert trial_queue.count == len(trials) == 1 + 5 + 1 + 2


def test_without_a_whole_trial_there_is_no_finalist() -> None:
    trial_queue = queue_of(config_of(HEADS, repeats=2))
    trials = simulate(trial_queue, lambda trial: done(trial, "failed"))
    assert names(trials)[-1] == "baseline-seed1" and trial_queue.count == len(trials) == 5


def test_a_finalist_has_a_baseline_that_is_trained_alike() -> None:
    config = config_of(HEADS | RATES, repeats=2)
    trials = simulate(queue_of(config))
    assert names(trials)[-4:-2] == ["baseline-seed1", "trial-005-seed1"]
    assert [trial.seed for trial in trials[-2:]] == [0, 1]
    own = trials[-1]
    assert own.settings == trials[-2].settings
    assert own.arm == "baseline" and own.settings == PLAIN | {"train.lr": 2e-3}


def test_it_has_none_where_its_settings_are_the_sweeps_own() -> None:
    config = config_of({"train.lr": {"grid": [1e-4, 1e-3]}}, repeats=2)
    assert config.train.lr == 1e-3
    trial_queue = queue_of(config)
    trials = simulate(trial_queue)
    assert names(trials)[-2:] == ["baseline-seed1", "trial-001-seed1"]
    assert trial_queue.count == len(trials) == 5


def test_finalists_with_the_same_settings_beside_the_spikes_share_their_baseline() -> None:
    trial_queue = queue_of(config_of(HEADS | RATES, repeats=2, finalists=2))
    trials = simulate(trial_queue)
    assert [row.trial.name for row in trial_queue.finalists()] == ["trial-005", "trial-004"]
    own = [trial for trial in trials if trial.arm == "baseline" and trial.settings != PLAIN]
    assert [trial.seed for trial in own] == [0, 1]
    runs = [(repr(trial.settings), trial.seed) for trial in trials]
    assert len(set(runs)) == len(runs)


def test_baseline_of_keeps_what_the_plain_model_has() -> None:
    config = config_of(HEADS)
    own = {"train.lr": 5e-4, "loss.ssim": 0.1, "model.heads": 2}
    spikes = {"model.fusion": "early", "model.spike.bins": 4, "data.voxels": "log1p"}
    assert baseline_of(config, own | spikes) == own | PLAIN
    assert baseline_of(config, spikes) == PLAIN
    assert baseline_of(config, {"train.lr": config.train.lr}) == PLAIN


@pytest.mark.parametrize("metric", ["step_s", "memory_gb"])
def test_sweeps_over_cost_have_one_baseline_and_no_repeats(metric: str) -> None:
    space = {"model.spike.chunk_size": {"grid": [None, 8, 16]}}
    trial_queue = queue_of(config_of(space, metric=metric, repeats=3, finalists=2))
    assert trial_queue.count == 4
    trials = simulate(trial_queue)
    assert names(trials) == ["baseline-seed0", "trial-000", "trial-001", "trial-002"]
    assert trial_queue.count == 4 and trial_queue.finalists() == []


SWEEPS: list[tuple[Mapping[str, Any], dict[str, Any]]] = [
    (HEADS, {}),
    (HEADS, {"repeats": 1}),
    (HEADS, {"finalists": 0, "repeats": 3}),
    (HEADS | RATES, {"repeats": 3, "finalists": 3}),
    (RATES, {"repeats": 1}),
    (RATES, {"finalists": 9}),
    (DRAWN, OPTUNA | {"finalists": 2}),
    (DRAWN, {"search": "random", "trials": 5, "repeats": 3, "finalists": 2}),
    (HEADS | DRAWN | RATES, {"search": "random", "trials": 2}),
    ({"train.reshard": {"grid": [True, False]}}, {"metric": "step_s", "repeats": 3}),
]


def some_fail(trial: Trial) -> TrialResult:
    """Return a row that is failed or stopped for some."""
    states: list[State] = ["done", "done", "stopped", "failed"]
    searched = trial.arm == "search"
    return done(trial, states[(trial.number or 0) % 4] if searched else "done")


@pytest.mark.parametrize(("space", "sweep"), SWEEPS)
@pytest.mark.parametrize("verdict", [done, some_fail])
def test_every_trial_is_run_once_in_any_order_of_their_ends(
    space: Mapping[str, Any], sweep: dict[str, Any], verdict: Verdict
) -> None:
    config = config_of(space, **sweep)
    for seed in range(4):
        trial_queue = queue_of(config)
        trials = simulate(trial_queue, verdict, seed=seed, most=3)
        assert len(set(names(trials))) == len(trials) == trial_queue.count == len(trial_queue.rows)
        assert trials[0].name == "baseline-seed0"
        searched = [at for at, trial in enumerate(trials) if trial.arm == "search"]
        assert [trials[at].number for at in searched] == list(range(len(searched)))
        assert all(trial.arm != "search" for trial in trials[searched[-1] + 1 :])
        own = [name for name in names(trials) if name.startswith("baseline-trial")]
        finalists = [at for at, trial in enumerate(trials) if trial.arm == "finalist"]
        assert all(at > searched[-1] for at in finalists)
        assert trial_queue.next() is None and trial_queue.finished
        if sweep_of(config).search != "optuna":
            alone = queue_of(config)
            assert set(names(simulate(alone, verdict))) == set(names(trials))
            assert {name for name in alone.rows if name.startswith("baseline-trial")} == set(own)


@pytest.mark.parametrize(("space", "sweep"), SWEEPS)
def test_a_sweep_goes_on_where_it_was_stopped(
    space: Mapping[str, Any], sweep: dict[str, Any]
) -> None:
    config = config_of(space, **sweep)
    whole = queue_of(config)
    simulate(whole, some_fail, most=3)
    for stop in {*range(0, len(whole.rows), 3), len(whole.rows) - 1, len(whole.rows)}:
        first = queue_of(config)
        begun = simulate(first, some_fail, most=3, stop=stop)
        kept = dict(first.rows)
        again = queue_of(config, begun=sorted(begun, key=lambda t: t.name), rows=kept.values())
        assert again.finished == (stop == len(whole.rows))
        started = simulate(again, some_fail, most=3, seed=1)
        assert not set(names(started)) & set(kept)
        assert {name: again.rows[name] for name in kept} == kept
        assert again.finished and again.count == len(again.rows)
        taken_up = {trial.name: trial for trial in started}
        for trial in begun:
            assert trial.name in kept or taken_up.get(trial.name, trial) == trial
        searched = {trial.name for trial in begun if trial.arm == "search"}
        assert searched <= set(kept) | set(taken_up)
        if sweep_of(config).search != "optuna":
            assert again.rows.keys() == whole.rows.keys()


def test_a_finished_sweep_is_finished_at_once() -> None:
    config = config_of(DRAWN, **OPTUNA)
    whole = queue_of(config)
    trials = simulate(whole)
    again = queue_of(config, begun=trials, rows=whole.rows.values())
    assert again.finished and again.count == whole.count and again.next() is None
    assert not queue_of(config).finished


def test_the_search_hears_of_earlier_trials() -> None:
    config = config_of(DRAWN, **OPTUNA)
    whole = [trial for trial in simulate(queue_of(config)) if trial.arm == "search"]
    first = queue_of(config)
    begun = simulate(first, stop=6)
    again = simulate(queue_of(config, begun=begun, rows=first.rows.values()))
    searched = {trial.name: trial for trial in (*begun, *again) if trial.arm == "search"}
    assert list(searched.values()) == whole


def test_a_trial_whose_note_was_lost_takes_none_from_the_others() -> None:
    config = config_of(DRAWN, **OPTUNA)
    whole = queue_of(config)
    trials = simulate(whole)
    lost = trials[3]
    assert lost.name == "trial-002"
    rows = [row for name, row in whole.rows.items() if name != lost.name]
    trial_queue = queue_of(config, begun=[t for t in trials if t != lost], rows=rows)
    assert not trial_queue.finished
    started = simulate(trial_queue)
    assert "trial-002" in names(started)
    assert not set(names(started)) & {row.trial.name for row in rows}


@pytest.mark.parametrize(("before", "after"), [(4, 7), (7, 4)])
def test_more_trials_go_on_and_fewer_end_with_those_that_were_begun(
    before: int, after: int
) -> None:
    def config(trials: int) -> Config:
        return config_of(DRAWN, search="random", trials=trials, finalists=2)

    first = queue_of(config(before))
    begun = simulate(first)
    assert queue_of(config(after), begun=begun).count == queue_of(config(7)).count
    trial_queue = queue_of(config(after), begun=begun, rows=first.rows.values())
    started = simulate(trial_queue, most=3)
    assert not set(names(started)) & set(names(begun))
    searched = sorted(
        (row.trial for row in trial_queue.rows.values() if row.trial.arm == "search"),
        key=lambda trial: trial.name,
    )
    expected = search_of(sweep_of(config(7)), lambda settings: None)
    assert [trial.settings for trial in searched] == [expected.suggest(n) for n in range(7)]
    assert trial_queue.count == len(trial_queue.rows) and trial_queue.finished


def test_rows_of_those_that_are_no_finalists_any_more_are_counted() -> None:
    first = queue_of(config_of(HEADS | RATES, repeats=3, finalists=2))
    begun = simulate(first)
    config = config_of(HEADS | RATES, repeats=2, finalists=0)
    trial_queue = queue_of(config, begun=begun, rows=first.rows.values())
    assert trial_queue.finished and trial_queue.count == len(first.rows)


def test_a_sweep_with_more_trials_keeps_the_baseline_that_is_trained_alike() -> None:
    """Another best with the same learning rate does not train its baseline again."""
    rates, more = {"train.lr": {"choice": [2e-3]}}, {"search": "random", "repeats": 2}
    heads = {"model.spike.heads": {"choice": [1, 2, 4, 8, 16]}}
    config = config_of(heads | rates, trials=2, **more)
    trial_queue = queue_of(config)
    simulate(trial_queue)
    again = queue_of(
        config_of(heads | rates, trials=5, **more), rows=list(trial_queue.rows.values())
    )
    trials = simulate(again)
    assert [trial for trial in trials if trial.arm == "baseline"] == []
    assert again.finished and len(trials) >= 3
