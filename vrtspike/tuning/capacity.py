"""How many trials a cluster has room for at the same time, and each one's share of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vrtspike.config.config import Config
from vrtspike.training.preflight import DATA_CPUS, data_cpus
from vrtspike.tuning.space import sweep_of


@dataclass(frozen=True)
class Capacity:
    """Trials at the same time, and the resources of each."""

    trials: int
    share: dict[str, float]


def room_for_trials(config: Config, resources: Mapping[str, float]) -> Capacity:
    """Divide the cluster's CPUs and GPUs among as many trials as fit.

    Raises ResourceError when not even one does.
    """
    data_cpus(config, resources)
    train = config.train
    # Fewer workers a trial (`train.min_workers`) are for when not even one has room for all.
    fitting = _fitting(config, train.workers, resources) or 1
    sweep = sweep_of(config)
    # Trials that are measured would disturb each other.
    trials = min(fitting, sweep.concurrency or (1 if sweep.cost else fitting))
    return Capacity(trials, {name: amount / trials for name, amount in resources.items()})


def _fitting(config: Config, workers: int, resources: Mapping[str, float]) -> int:
    """Return how many trials of so many workers the resources are enough for."""
    needs = {"CPU": workers * config.train.cpus_per_worker + DATA_CPUS}
    if config.train.gpu:
        needs["GPU"] = float(workers)
    return min(int(resources.get(name, 0.0) / need + 1e-9) for name, need in needs.items())
