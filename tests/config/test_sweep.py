"""A sweep's settings: every distribution, and what contradicts itself is refused on one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vrtspike.config.loader import dump_config, load_config
from vrtspike.config.sweep import Choice, Grid, Integer, LogUniform, SweepSettings, Uniform
from vrtspike.errors import ConfigError

GRID = {"model.fusion": {"grid": ["temporal", "early"]}}
CHOICE = {"model.fusion": {"choice": ["temporal", "early"]}}


def load(tmp_path: Path, **sweep: Any) -> SweepSettings:
    """Read a sweep from a file."""
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({"sweep": sweep}), encoding="utf-8")
    found = load_config(path).sweep
    assert found is not None
    return found


def test_every_distribution_is_read_and_written(tmp_path: Path) -> None:
    space = {
        "a": {"grid": [None, 8, "square", [2, 8, 8]]},
        "b": {"choice": [True, 0.5]},
        "c": {"uniform": [-0.5, 0.5]},
        "d": {"log_uniform": [1e-4, 1]},
        "e": {"integer": [8, 32], "step": 8},
        "f": {"integer": [-1, 1]},
    }
    found = load(tmp_path, space=space, search="random", trials=3)
    assert found.space == {
        "a": Grid(grid=(None, 8, "square", [2, 8, 8])),
        "b": Choice(choice=(True, 0.5)),
        "c": Uniform(uniform=(-0.5, 0.5)),
        "d": LogUniform(log_uniform=(1e-4, 1.0)),
        "e": Integer(integer=(8, 32), step=8),
        "f": Integer(integer=(-1, 1), step=1),
    }
    text = dump_config(load_config(tmp_path / "sweep.yaml"))
    (tmp_path / "again.yaml").write_text(text, encoding="utf-8")
    assert load_config(tmp_path / "again.yaml").sweep == found


def test_what_needs_no_more_may_be_left_out(tmp_path: Path) -> None:
    load(tmp_path, space=GRID)
    load(tmp_path, space=GRID | {"train.lr": {"uniform": [1, 2]}}, search="random", trials=1)
    load(tmp_path, space=GRID, scheduler="asha", grace=0.5, reduction=2)
    assert not load(tmp_path, space=GRID, scheduler="median", grace=0.5).cost
    assert load(tmp_path, space=GRID, metric="step_s").cost
    assert load(tmp_path, space=GRID, metric="memory_gb").cost


@pytest.mark.parametrize(
    ("how", "parts"),
    [
        ({"values": [1]}, ["grid, choice, uniform, log_uniform, integer", "{'values': [1]}"]),
        ([1, 2], ["one of grid, choice", "got [1, 2]"]),
        ({"grid": []}, ["at least 1 item", "got []"]),
        ({"choice": []}, ["at least 1 item"]),
        ({"grid": 3}, ["got 3", "tuple"]),
        ({"uniform": [2, 1]}, ["[2, 1] is not a range, least end first"]),
        ({"uniform": [1, 1]}, ["[1, 1] is not a range"]),
        ({"uniform": [1]}, ["uniform.1"]),
        ({"uniform": [0, float("inf")]}, ["finite number"]),
        ({"uniform": [0, "much"]}, ["got 'much'", "number"]),
        ({"log_uniform": [0, 1]}, ["got 0", "greater than 0"]),
        ({"log_uniform": [1e-2, 1e-4]}, ["[0.01, 0.0001] is not a range"]),
        ({"integer": [1, 2.5]}, ["got 2.5", "integer"]),
        ({"integer": [4, 2]}, ["[4, 2] is not a range"]),
        ({"integer": [1, 4], "step": 0}, ["got 0", "greater than 0"]),
        ({"choice": [1], "step": 2}, ["step"]),
        ({"grid": [1], "choice": [2]}, ["choice"]),
    ],
)
def test_a_wrong_distribution_is_refused(tmp_path: Path, how: Any, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, space={"train.lr": how}, search="random", trials=2)
    message = str(caught.value)
    assert "\n" not in message and "sweep.space.train.lr" in message
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"space": {}}, "sweep.space .*at least 1 item"),
        ({}, "sweep.space"),
        ({"space": GRID, "search": "optuna", "trials": 2}, r"optuna does not take grid.*choice"),
        ({"space": CHOICE}, r"grid does not take choice \(model\.fusion\); set search random"),
        ({"space": {"train.lr": {"uniform": [1, 2]}}}, "grid does not take uniform"),
        ({"space": GRID, "trials": 2}, "search grid takes no `trials`"),
        ({"space": CHOICE, "search": "random"}, "search random needs `trials`"),
        ({"space": CHOICE, "search": "optuna"}, "search optuna needs `trials`"),
        ({"space": CHOICE, "search": "random", "trials": 0}, "got 0"),
        ({"space": GRID, "grace": 0.5}, "scheduler none takes no `grace`"),
        ({"space": GRID, "scheduler": "asha"}, "scheduler asha needs `grace`"),
        ({"space": GRID, "scheduler": "median"}, "scheduler median needs `grace`"),
        ({"space": GRID, "scheduler": "asha", "grace": 1.0}, "got 1.0"),
        ({"space": GRID, "scheduler": "asha", "grace": 0.5, "reduction": 1}, "greater than 1"),
        (
            {"space": GRID, "scheduler": "median", "grace": 0.5, "reduction": 2},
            "median takes no `reduction`",
        ),
        ({"space": GRID, "reduction": 2}, "scheduler none takes no `reduction`"),
        (
            {"space": GRID, "metric": "step_s", "scheduler": "asha", "grace": 0.5},
            "metric step_s needs whole trials: set scheduler none",
        ),
        ({"space": GRID, "metric": "lpips"}, "sweep.metric.*'psnr', 'ssim', 'step_s'"),
        ({"space": GRID, "finalists": -1}, "got -1"),
        ({"space": GRID, "repeats": 0}, "got 0"),
        ({"space": GRID, "concurrency": 0}, "got 0"),
        ({"space": GRID, "searcher": "grid"}, "did you mean sweep.search?"),
    ],
)
def test_a_contradiction_is_refused(tmp_path: Path, sweep: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, **sweep)
    assert "\n" not in str(caught.value)
