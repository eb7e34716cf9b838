"""Runs on several nodes outlive what happens to nodes, drivers and workers."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ray.faults import CPUS_PER_WORKER, Driver, Nodes, nodes, records

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(500)]
STEPS = 36
ALIKE = 20
"""Steps for which other orders of summation do not show: differences grow from step to step."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """Run a cluster of two nodes beside its head."""
    with nodes() as found:
        yield found


@pytest.fixture(scope="module")
def start(
    cluster: Nodes, moving_photograph: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Driver]:
    """Return a function that starts a small run on the cluster."""
    folder = tmp_path_factory.mktemp("faults")
    moving_photograph(folder / "source", {"a": 4, "b": 3}, split="train")
    moving_photograph(folder / "source", {"c": 3}, split="val")

    def run(name: str, **changes: Any) -> Driver:
        overrides = {
            "data.source": folder / "source",
            "data.shards": folder / "shards",
            "data.frames": 2,
            "model.blocks": 1,
            "train.steps": STEPS,
            "train.checkpoint_every": 4,
            "train.validate_every": 0,
            "train.keep_checkpoints": 9,
            "train.cpus_per_worker": CPUS_PER_WORKER,
        } | {key.replace("__", "."): value for key, value in changes.items()}
        return Driver(cluster.address, folder / "runs" / name, overrides, folder / f"{name}.log")

    return run


def losses(run: Path) -> list[float]:
    found = records(run, "train")
    assert [record["step"] for record in found] == list(range(1, STEPS + 1))
    return [record["loss"] for record in found]


@pytest.fixture(scope="module")
def whole(start: Callable[..., Driver]) -> Path:
    """Return the folder of a run over two nodes that nothing disturbed."""
    driver = start("whole")
    assert driver.end() == 0, driver.said
    return driver.run


def test_weights_shared_in_a_node_train_as_weights_shared_by_all(
    start: Callable[..., Driver], whole: Path
) -> None:
    driver = start("hybrid", train__shard_over="node")
    assert driver.end() == 0, driver.said
    assert losses(driver.run)[:ALIKE] == pytest.approx(losses(whole)[:ALIKE], rel=1e-3)


def test_a_lost_node_leaves_a_run_of_fewer_workers(
    start: Callable[..., Driver], whole: Path, cluster: Nodes
) -> None:
    driver = start("elastic", train__min_workers=1)
    driver.until_step(6)
    cluster.lose(3)
    try:
        assert driver.end() == 0, driver.said
    finally:
        cluster.add(3)
    starts = records(driver.run, "start")
    assert [start["world_size"] for start in starts] == [2, 1]
    assert starts[1]["step"] >= 4
    assert losses(driver.run)[:ALIKE] == pytest.approx(losses(whole)[:ALIKE], rel=1e-3)


def test_a_node_that_is_to_be_taken_away_costs_next_to_nothing(
    start: Callable[..., Driver], whole: Path, cluster: Nodes
) -> None:
    driver = start("drained", train__checkpoint_every=1000)
    driver.until_step(5)
    cluster.drain(3, 15)
    cluster.add(4)
    try:
        driver.until(lambda: "saving as often as storage allows" in driver.said)
        assert driver.end() == 0, driver.said
    finally:
        cluster.lose(3)
    starts = [record["step"] for record in records(driver.run, "start")]
    assert starts[0] == 0 and (len(starts) == 1 or starts[1] > 5)
    assert losses(driver.run) == losses(whole)


def test_a_rank_that_hangs_is_named_and_replaced(
    start: Callable[..., Driver], whole: Path, cluster: Nodes
) -> None:
    driver = start("frozen", train__hang_timeout_s=15)
    driver.until_step(6)
    process = cluster.workers()[0]
    process.suspend()
    assert driver.end() == 0, driver.said
    named = re.search(r"rank [01] \([^)]*process (\d+)\) stopped answering", driver.said)
    assert named is not None and int(named[1]) == process.pid, driver.said
    assert losses(driver.run) == losses(whole)


def test_two_drivers_cannot_train_the_same_run(start: Callable[..., Driver]) -> None:
    first = start("twice")
    first.until_step(1)
    second = start("twice")
    assert second.end() == 2 and "is being trained already" in second.said
    first.process.send_signal(signal.SIGTERM)
    assert first.end() == 128 + signal.SIGTERM
