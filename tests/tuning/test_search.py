"""Which settings trials have: all, drawn, or where earlier ones did well."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping
from typing import Any

import pytest

from tests.tuning.sweeps import config_of
from vrtspike.errors import ConfigError
from vrtspike.tuning.search import Possible, Search, search_of
from vrtspike.tuning.space import Settings, sweep_of

FUSIONS = {"model.fusion": {"grid": ["temporal", "early", "window"]}}
DRAWN = {"model.spike.heads": {"choice": [1, 2, 4]}, "train.lr": {"log_uniform": [1e-4, 1e-2]}}
INTEGERS = {"model.spike.blocks": {"integer": [1, 8], "step": 3}}


def all_possible(settings: Mapping[str, Any]) -> None:
    """Refuse nothing."""


def no_one_head(settings: Mapping[str, Any]) -> ConfigError | None:
    """Refuse one head."""
    return ConfigError("one head") if settings["model.spike.heads"] == 1 else None


def search(space: Mapping[str, Any], possible: Possible = all_possible, **sweep: Any) -> Search:
    return search_of(sweep_of(config_of(space, **sweep)), possible)


def listed(found: Search) -> list[Settings]:
    """Return all trials of a search that needs to be told nothing."""
    trials = [found.suggest(number) for number in range(found.count)]
    assert found.suggest(found.count) is None
    return [trial for trial in trials if trial is not None]


def score(settings: Mapping[str, Any]) -> float:
    """Return what a trial reaches: best with 2 heads at 1e-3."""
    return -abs(math.log10(settings["train.lr"]) + 3) - (settings["model.spike.heads"] != 2)


def told(found: Search, count: int) -> list[Settings]:
    """Run a search's trials one after the other."""
    trials = []
    for number in range(count):
        settings = found.suggest(number)
        assert settings is not None
        found.tell(settings, score(settings))
        trials.append(settings)
    return trials


def test_grid_is_every_combination_the_last_key_changing_fastest() -> None:
    space = FUSIONS | {"model.spike.heads": {"grid": [1, 2]}}
    expected = [
        {"model.fusion": fusion, "model.spike.heads": heads}
        for fusion, heads in itertools.product(["temporal", "early", "window"], [1, 2])
    ]
    assert listed(search(space)) == expected
    possible = [trial for trial in expected if trial["model.spike.heads"] == 2]
    assert listed(search(space, no_one_head)) == possible


def test_what_a_search_gave_can_be_changed_without_harm() -> None:
    found = search(FUSIONS)
    first = found.suggest(0)
    assert first is not None
    first["model.fusion"] = "none"
    assert found.suggest(0) == {"model.fusion": "temporal"}


@pytest.mark.parametrize("space", [DRAWN, DRAWN | INTEGERS, DRAWN | FUSIONS])
def test_random_draws_depend_on_seed_and_number_alone(space: dict[str, Any]) -> None:
    def trials(**sweep: Any) -> list[Settings]:
        return listed(search(space, search="random", **sweep))

    assert trials(trials=6) == trials(trials=6, seed=0)
    assert trials(trials=6)[: len(trials(trials=4))] == trials(trials=4)
    assert trials(trials=6, seed=1) != trials(trials=6)
    assert len({trial["train.lr"] for trial in trials(trials=6)}) == 6


def test_each_draw_is_tried_with_every_combination_of_the_grid_keys() -> None:
    space = FUSIONS | DRAWN | {"loss.ssim": {"grid": [0.0, 0.1]}}
    trials = listed(search(space, search="random", trials=4))
    assert len(trials) == 4 * 6
    assert all(list(trial) == list(space) for trial in trials)
    for number in range(4):
        group = trials[6 * number : 6 * number + 6]
        assert len({trial["train.lr"] for trial in group}) == 1
        pairs = [(trial["model.fusion"], trial["loss.ssim"]) for trial in group]
        assert pairs == list(itertools.product(["temporal", "early", "window"], [0.0, 0.1]))


@pytest.mark.parametrize("kind", ["random", "optuna"])
def test_impossible_combinations_are_drawn_again(kind: str) -> None:
    trials = told(search(DRAWN, no_one_head, search=kind, trials=20), 20)
    assert {trial["model.spike.heads"] for trial in trials} <= {2, 4}
    with pytest.raises(ConfigError, match=r"draws only impossible combinations.*1000 draws"):
        search({"model.spike.heads": {"choice": [1]}}, no_one_head, search=kind, trials=2).suggest(
            0
        )


def test_optuna_gives_values_of_the_space() -> None:
    space = DRAWN | INTEGERS | {"loss.ssim": {"uniform": [0.0, 0.3]}}
    trials = told(search(space, search="optuna", trials=30), 30)
    assert all(list(trial) == list(space) for trial in trials)
    for trial in trials:
        assert trial["model.spike.heads"] in (1, 2, 4)
        assert trial["model.spike.blocks"] in (1, 4, 7)
        assert 0.0 <= trial["loss.ssim"] <= 0.3 and 1e-4 <= trial["train.lr"] <= 1e-2


def test_optuna_follows_from_seed_and_what_it_was_told() -> None:
    whole = told(search(DRAWN, search="optuna", trials=16), 16)
    assert told(search(DRAWN, search="optuna", trials=16), 16) == whole
    assert told(search(DRAWN, search="optuna", trials=16, seed=1), 16) != whole
    continued = search(DRAWN, search="optuna", trials=16)
    for settings in whole[:12]:
        continued.tell(settings, score(settings))
    assert [continued.suggest(number) for number in range(12, 13)] == whole[12:13]
    assert continued.suggest(16) is None
    # The same places, another verdict: it goes elsewhere.
    misled = search(DRAWN, search="optuna", trials=16)
    for settings in whole[:12]:
        misled.tell(settings, -score(settings))
    assert misled.suggest(12) != whole[12]


def test_trials_side_by_side_differ() -> None:
    """Those that run are known as little as good, and none is suggested again."""
    space = {
        "model.spike.heads": {"choice": [1, 2, 4]},
        "data.voxels": {"choice": ["rate", "log1p"]},
    }
    for seed in range(5):
        found = search(space, search="optuna", trials=6, seed=seed)
        given = [found.suggest(number) for number in range(6)]
        assert len({repr(settings) for settings in given}) == 6


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_optuna_learns_nothing_of_what_has_no_value(value: float | None) -> None:
    trials = told(search(DRAWN, search="optuna", trials=16), 8)
    plain, other = (search(DRAWN, search="optuna", trials=16) for _ in range(2))
    for settings in trials:
        plain.tell(settings, score(settings))
        other.tell(settings, score(settings))
        other.tell(settings, value)
    assert plain.suggest(8) == other.suggest(8)


def test_optuna_finds_what_is_better() -> None:
    space = {"train.lr": {"log_uniform": [1e-6, 1.0]}, "model.spike.heads": {"choice": [1, 2, 4]}}
    best: dict[str, list[float]] = {"random": [], "optuna": []}
    for kind, seed in itertools.product(best, range(5)):
        trials = told(search(space, search=kind, trials=25, seed=seed), 25)
        best[kind].append(statistics.median(score(trial) for trial in trials[-10:]))
    assert statistics.median(best["optuna"]) > statistics.median(best["random"]) + 0.5


def test_optuna_looks_for_the_least_cost() -> None:
    space = {"model.spike.max_batch_tokens": {"integer": [1, 1000]}}
    found = search(space, search="optuna", trials=30, metric="step_s")
    for number in range(30):
        settings = found.suggest(number)
        assert settings is not None
        found.tell(settings, settings["model.spike.max_batch_tokens"])
        if number >= 20:
            assert settings["model.spike.max_batch_tokens"] < 500


@pytest.mark.parametrize("kind", ["random", "optuna"])
def test_no_combination_is_drawn_twice_while_there_are_others(kind: str) -> None:
    space = {
        "model.spike.heads": {"choice": [1, 2]},
        "data.voxels": {"choice": ["rate", "log1p"]},
    }
    found = search(space, search=kind, trials=9)
    given = []
    while (settings := found.suggest(len(given))) is not None:
        given.append(tuple(settings.values()))
        found.tell(settings, float(len(given)))
    assert len(set(given[:4])) == len(set(given)) == 4
    assert len(given) == (4 if kind == "random" else 9)
