"""How many trials fit a cluster, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tuning.sweeps import config_of
from vrtspike.config.loader import change
from vrtspike.errors import ResourceError
from vrtspike.training.preflight import DATA_CPUS, data_cpus
from vrtspike.tuning.capacity import room_for_trials

SPACE = {"model.spike.heads": {"grid": [1, 2]}}


def room(resources: dict[str, float], sweep: dict[str, Any] | None = None, **train: Any) -> Any:
    settings = {"workers": 2, "gpu": False, "cpus_per_worker": 0.5} | train
    config = change(
        config_of(SPACE, **sweep or {}),
        {"train.batch": 12} | {f"train.{key}": value for key, value in settings.items()},
    )
    found = room_for_trials(config, resources)
    # Each trial's share is enough, and all shares are the cluster.
    assert data_cpus(config, found.share) > 0
    for name, amount in resources.items():
        assert found.share[name] * found.trials == pytest.approx(amount)
    return found


@pytest.mark.parametrize(
    ("cpus", "train", "trials"),
    [
        (2, {}, 1),
        (3.9, {}, 1),
        (4, {}, 2),
        (64, {}, 32),
        (8, {"workers": 4, "cpus_per_worker": 1}, 1),
        (10, {"workers": 4, "cpus_per_worker": 1}, 2),
        (2.6, {"workers": 3, "cpus_per_worker": 0.1}, 2),
    ],
)
def test_on_processors(cpus: float, train: dict[str, Any], trials: int) -> None:
    assert room({"CPU": float(cpus)}, **train).trials == trials


@pytest.mark.parametrize(
    ("cpus", "gpus", "train", "trials"),
    [
        (64, 8, {"workers": 2}, 4),
        (64, 8, {"workers": 3}, 2),
        (64, 1, {"workers": 1}, 1),
        (4, 8, {"workers": 2}, 2),
        (16, 8, {"workers": 1, "cpus_per_worker": 1}, 8),
        (8, 8, {"workers": 1, "cpus_per_worker": 1}, 4),
    ],
)
def test_on_gpus(cpus: int, gpus: int, train: dict[str, Any], trials: int) -> None:
    found = room({"CPU": float(cpus), "GPU": float(gpus)}, gpu=True, **train)
    assert found.trials == trials
    assert found.share == {"CPU": cpus / trials, "GPU": gpus / trials}


def test_gpus_are_not_looked_at_without_need() -> None:
    assert room({"CPU": 8.0, "GPU": 1.0}).trials == 4


def test_runs_shrink_only_where_not_one_has_room_for_all_workers() -> None:
    train = {"workers": 4, "min_workers": 2, "cpus_per_worker": 1}
    assert room({"CPU": 3.0}, **train).trials == 1
    assert room({"CPU": 6.0}, **train).trials == 1
    assert room({"CPU": 10.0}, **train).trials == 2
    with pytest.raises(ResourceError, match=r"got 2\.5 CPUs, expected 3: 2 workers"):
        room({"CPU": 2.5}, **train)


def test_no_more_than_are_asked_for() -> None:
    found = room({"CPU": 64.0}, {"concurrency": 4})
    assert found.trials == 4 and found.share == {"CPU": 16.0}
    assert room({"CPU": 4.0}, {"concurrency": 99}).trials == 2


@pytest.mark.parametrize(
    ("resources", "train", "message"),
    [
        ({"CPU": 1.5}, {}, r"too few CPUs.*got 1\.5 CPUs, expected 2: 2 workers"),
        ({}, {}, "too few CPUs.*got 0 CPUs"),
        ({"CPU": 8.0}, {"gpu": True}, "too few GPUs.*got 0 GPUs, expected 2"),
        ({"CPU": 8.0, "GPU": 1.0}, {"gpu": True}, "got 1 GPUs, expected 2"),
    ],
)
def test_a_trial_that_does_not_fit_is_refused(
    resources: dict[str, float], train: dict[str, Any], message: str
) -> None:
    with pytest.raises(ResourceError, match=message):
        room(resources, **train)


def test_every_amount_that_a_trial_fits_has_room_for_one() -> None:
    for workers in range(1, 12):
        for hundredths in range(1, 120, 17):
            share = hundredths / 100
            config = change(
                config_of(SPACE),
                {"train.workers": workers, "train.batch": workers, "train.cpus_per_worker": share},
            )
            for times in (1, 2, 3):
                cpus = times * (workers * share + DATA_CPUS)
                found = room_for_trials(config, {"CPU": cpus})
                assert found.trials == times
