"""What a sweep tries, and what is refused before its first trial."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from tests.training.test_preflight import manifest
from tests.tuning.sweeps import config_of
from vrtspike.config.config import Config
from vrtspike.config.loader import change, same_in_trials
from vrtspike.errors import ConfigError
from vrtspike.samples.shards import Manifest
from vrtspike.tuning import space as module
from vrtspike.tuning.checks import check_space
from vrtspike.tuning.space import corners, draw, grid, said, sweep_of

HEADS = {"model.spike.heads": {"grid": [1, 2]}}
CHUNKS = {"model.spike.chunk_size": {"grid": [None, 8]}}
ONE_OF_EACH = {
    "model.fusion": {"grid": ["temporal", "window", "early"]},
    "model.spike.heads": {"choice": [1, 2]},
    "model.spike.blocks": {"integer": [1, 6], "step": 2},
    "loss.ssim": {"uniform": [0.0, 0.3]},
    "train.lr": {"log_uniform": [1e-4, 1e-2]},
}


def space_of(space: dict[str, Any]) -> Any:
    return sweep_of(config_of(space, search="random", trials=1)).space


def refusal(config: Config, data: Manifest | None = None) -> str:
    """Return the line with which a sweep is refused."""
    with pytest.raises(ConfigError) as caught:
        check_space(config, data)
    message = str(caught.value)
    assert "\n" not in message
    return message


def drawn(space: dict[str, Any], **sweep: Any) -> Config:
    return config_of(space, search="random", trials=2, **sweep)


def test_corners_are_all_discrete_values_with_both_ends_of_ranges_once() -> None:
    found = [tuple(settings.values()) for settings in corners(space_of(ONE_OF_EACH), 0)]
    values = (["temporal", "window", "early"], [1, 2], [1, 3, 5], [0.0, 0.3], [1e-4, 1e-2])
    assert found == list(itertools.product(*values))
    assert all(
        list(settings) == list(ONE_OF_EACH) for settings in corners(space_of(ONE_OF_EACH), 0)
    )


@pytest.mark.parametrize(
    "space",
    [
        {"model.blocks": {"integer": [1, 129]}},
        {"train.milestones": {"integer": [1, 10**12]}},
        {f"key{number}": {"integer": [1, 10**6]} for number in range(9)},
        {f"key{number}": {"choice": [1, 2]} for number in range(12)},
    ],
)
def test_of_a_large_space_a_sample_without_duplicates_is_checked(space: dict[str, Any]) -> None:
    found = list(corners(space_of(space), 3))
    assert len(found) == module.MOST_CHECKED
    assert len({tuple(settings.values()) for settings in found}) == len(found)
    assert found == list(corners(space_of(space), 3)) != list(corners(space_of(space), 4))
    for settings in found:
        assert settings.keys() == space.keys()
        for key, value in settings.items():
            how = space[key]
            assert value in how["choice"] if "choice" in how else 1 <= value <= how["integer"][1]


def test_grid_is_the_product_of_the_grid_keys() -> None:
    space = {"a": {"grid": [1, 2]}, "b": {"choice": [0]}, "c": {"grid": ["x", None, 3]}}
    expected = [{"a": a, "c": c} for a, c in itertools.product([1, 2], ["x", None, 3])]
    assert grid(space_of(space)) == expected
    assert grid(space_of({"b": {"choice": [0]}})) == [{}]


def test_draws_are_of_their_distribution() -> None:
    generator = np.random.default_rng(0)
    space = space_of(ONE_OF_EACH | {"big": {"integer": [0, 10**15]}})
    draws = [draw(space, generator) for _ in range(2000)]
    assert all("model.fusion" not in found for found in draws)
    heads, blocks, ssim, lr, _ = (np.array(column) for column in zip(*map(dict.values, draws)))  # noqa: B905
    for found, values in ((heads, [1, 2]), (blocks, [1, 3, 5])):
        counts = np.array([np.sum(found == value) for value in values])
        assert counts.sum() == 2000
        assert abs(counts - 2000 / len(values)).max() < 5 * math.sqrt(2000 / len(values))
    for found, low, high in ((ssim, 0.0, 0.3), (np.log(lr), math.log(1e-4), math.log(1e-2))):
        assert found.min() >= low and found.max() <= high
        # Kolmogorov's distance to a uniform one; 1.95 / sqrt(n) is passed once in a thousand.
        ranks = (np.sort(found) - low) / (high - low)
        assert abs(ranks - (np.arange(2000) + 0.5) / 2000).max() < 1.95 / math.sqrt(2000)
    kinds = {key: type(value) for key, value in draws[0].items()}
    assert kinds["model.spike.blocks"] is kinds["big"] is int and kinds["train.lr"] is float


def test_a_sweep_that_can_run_passes() -> None:
    check_space(config_of(HEADS))
    check_space(drawn({key: how for key, how in ONE_OF_EACH.items() if key != "model.fusion"}))
    check_space(config_of(CHUNKS, metric="step_s"))
    check_space(config_of(CHUNKS | HEADS))
    check_space(drawn({"data.voxels": {"choice": ["rate", "log1p"]}}))
    check_space(config_of({"data.threshold_factors": {"grid": [[1], [1, 2, 4]]}}))
    check_space(config_of({"model.window": {"grid": [[2, 4, 4], [4, 4, 4]]}}))


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("model.spike.head", "did you mean model.spike.heads?"),
        ("model.heads.x", "did you mean model.heads?"),
        ("lr", "did you mean train.lr?"),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, nearest: str) -> None:
    message = refusal(config_of({key: {"grid": [1]}}))
    assert message == f"unknown setting {key} [sweep.space.{key}]. Fix: {nearest}"


@pytest.mark.parametrize("key", sorted(same_in_trials()))
def test_what_makes_trials_unequal_is_not_swept(key: str) -> None:
    message = refusal(config_of({key: {"grid": [1, 2]}}))
    assert f"a sweep cannot change {key}: {same_in_trials()[key]} [sweep.space.{key}]" in message


@pytest.mark.parametrize(
    "key",
    [
        *("run.seed", "run.name", "data.frames", "data.crop", "data.source", "camera.noise"),
        *("scenes.frames", "scenes", "scenes.sequences.train", "evaluation.split"),
        *("sweep.trials", "sweep.space.x"),
    ],
)
def test_what_trials_share_is_not_swept(key: str) -> None:
    message = refusal(config_of({key: {"grid": [1]}}))
    assert f"a sweep cannot change {key}: it is the same for all trials" in message


@pytest.mark.parametrize("key", ["model", "model.spike", "train", "loss"])
def test_sections_are_not_swept(key: str) -> None:
    assert f"{key} is a section of settings" in refusal(config_of({key: {"grid": [{}]}}))


@pytest.mark.parametrize("impossible", ["refuse", "skip"])
@pytest.mark.parametrize(
    ("space", "parts"),
    [
        ({"model.spike.heads": {"grid": [2, "two"]}}, ["heads=two", "got 'two'", "integer"]),
        ({"model.spike.heads": {"grid": [0, 2]}}, ["heads=0", "got 0", "greater than 0"]),
        ({"model.fusion": {"grid": ["early", "late"]}}, ["fusion=late", "got 'late'"]),
        ({"train.lr": {"grid": [1e-3, None]}}, ["train.lr=null", "got None", "number"]),
        (
            {"model.spike.heads": {"grid": [1, 3]}, "train.lr": {"grid": [-1.0]}},
            ["train.lr=-1", "got -1.0"],
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_a_mistake_also_where_others_are_skipped(
    impossible: str, space: dict[str, Any], parts: list[str]
) -> None:
    message = refusal(config_of(space, impossible=impossible))
    assert "a trial of the sweep is impossible: setting " in message
    assert all(part in message for part in parts), message


def test_impossible_combinations_are_refused_or_skipped() -> None:
    space = {"model.heads": {"grid": [2, 3]}, "model.spike.heads": {"grid": [1, 2]}}
    message = refusal(config_of(space))
    assert "model.heads=3 model.spike.heads=1" in message and "channels" in message
    check_space(config_of(space, impossible="skip"))
    nothing = {"model.heads": {"grid": [3, 5, 7]}}
    assert refusal(config_of(nothing, impossible="skip")) == (
        "no trial of the sweep is possible: got 3 combinations"
    )
    losses = {"loss.charbonnier": {"grid": [0.0, 1.0]}}
    assert "no loss term" in refusal(config_of(losses))
    check_space(config_of(losses, impossible="skip"))
    batches = config_of({"train.accumulation": {"grid": [1, 3]}})
    assert "train.accumulation=3" in refusal(batches)
    check_space(change(batches, {"sweep.impossible": "skip"}))


def test_a_flow_network_is_not_swept() -> None:
    message = refusal(change(config_of(HEADS), {"train.task": "flow"}))
    assert "train.task" in message and "got flow, expected restore" in message


def test_the_baseline_must_be_possible_too() -> None:
    config = change(config_of({"model.heads": {"grid": [2, 4]}}), {"model.heads": 3})
    message = refusal(config)
    assert "heads" in message and "trial" not in message
    # Of the spikes' part the baseline has nothing.
    check_space(change(config_of(HEADS), {"model.spike.heads": 3}))


def test_what_does_not_fit_the_data_is_impossible() -> None:
    config = change(
        config_of({"model.spike.bins": {"grid": [8, 56]}}),
        {"data.frames": 3, "data.crop": 32, "data.source": "elsewhere"},
    )
    check_space(config, manifest())
    larger = change(config, {"sweep.space": {"model.spike.bins": {"grid": [8, 57]}}})
    check_space(larger)
    message = refusal(larger, manifest())
    assert "more voxel bins than steps" in message and "expected at most 56" in message
    check_space(change(larger, {"sweep.impossible": "skip"}), manifest())
    assert "another data.frames" in refusal(change(config, {"data.frames": 4}), manifest())


def test_the_metric_must_be_what_the_settings_change() -> None:
    message = refusal(config_of(CHUNKS | HEADS, metric="step_s"))
    assert "step_s, and model.spike.heads changes results" in message
    assert "do not change psnr, but cost" in refusal(config_of(CHUNKS))
    assert "do not change ssim, but cost" in refusal(config_of(CHUNKS, metric="ssim"))


@pytest.mark.parametrize(
    ("every", "grace", "passes"),
    [
        *((5, 0.4, True), (5, 0.5, True), (9, 0.9, True), (1, 0.9, True)),
        *((0, 0.4, False), (10, 0.4, False), (20, 0.4, False), (5, 0.6, False)),
    ],
)
def test_trials_are_cut_short_only_where_one_is_validated_in_time(
    every: int, grace: float, passes: bool
) -> None:
    config = change(
        config_of(HEADS, scheduler="asha", grace=grace), {"train.validate_every": every}
    )
    assert config.train.steps == 10
    if passes:
        check_space(config)
    else:
        message = refusal(config)
        assert "no trial can be cut short" in message and f"validate_every {every}" in message


@pytest.mark.parametrize(
    ("every", "grace", "passes"),
    [
        *((0.5, 0.5, True), (0.2, 0.8, True), (0.3, 0.9, True), (0.1, 0.3, True)),
        *((0.5, 0.6, False), (0.2, 0.9, False), (0, 0.4, False)),
    ],
)
@pytest.mark.parametrize("minutes", [None, 3.0])
def test_the_same_with_validations_by_shares(
    every: float, grace: float, passes: bool, minutes: float | None
) -> None:
    config = change(
        config_of(HEADS, scheduler="asha", grace=grace),
        {"train.validate_every": every, "train.minutes": minutes},
    )
    if passes:
        check_space(config)
    else:
        assert f"validate_every {every} of" in refusal(config)


def test_trials_of_equal_minutes_are_compared_at_equal_shares_or_not_at_all() -> None:
    minutes = {"train.minutes": 3.0}
    message = refusal(change(config_of(HEADS, scheduler="median", grace=0.2), minutes))
    assert "different shares" in message and "train.validate_every=0.2" in message
    check_space(change(config_of(HEADS), minutes))
    message = refusal(change(config_of(CHUNKS, metric="step_s"), minutes))
    assert "cannot be ranked by step_s" in message


def test_the_batch_and_the_crop_are_swept_at_equal_time_alone() -> None:
    space = HEADS | {"train.batch": {"grid": [2, 4]}, "data.crop": {"grid": [16, 32]}}
    assert "see the same samples" in refusal(config_of(space))
    check_space(change(config_of(space), {"train.minutes": 3.0}))
    assert "does not divide" in refusal(
        change(config_of({"train.batch": {"grid": [3]}} | HEADS), {"train.minutes": 3.0})
    )
    for key in ("train.steps", "train.minutes", "train.clock"):
        swept = change(config_of({key: {"grid": [1, 2]}}), {"train.minutes": 3.0})
        assert "same budget" in refusal(swept)


def test_the_model_without_spikes_is_no_trial() -> None:
    for config in (
        config_of({"model.fusion": {"grid": ["early", "none"]}}, impossible="skip"),
        drawn({"model.fusion": {"choice": ["none", "early"]}}),
        change(config_of(HEADS), {"model.fusion": "none"}),
    ):
        assert "part of every sweep as its baseline" in refusal(config)


def test_without_a_sweep_there_is_nothing_to_check() -> None:
    assert "the configuration has no sweep" in refusal(change(config_of(HEADS), {"sweep": None}))


def test_settings_are_said_as_one_types_them() -> None:
    settings = {"a": 0.00012345678, "b": None, "c": "x", "d": 8, "e": [1, 2]}
    assert said(settings) == "a=0.0001235 b=null c=x d=8 e=[1, 2]"
