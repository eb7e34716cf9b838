"""A sweep on a cluster: stopped, killed and robbed of a node, it finishes what is missing."""

from __future__ import annotations

import csv
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray.util.state import list_actors, list_placement_groups

from tests.ray.faults import CPUS_PER_WORKER, RAYS_OWN, Driver, Nodes, last_step, nodes
from vrtspike.config.loader import load_config

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STEPS = 20
"""So many that a trial which is told to stop has not ended by then."""
GOOD, BAD, HOPELESS = 1e-3, 0.3, 1000.0
"""Learning rates: one that learns, one that is cut short, one that fails at once: with a weight
decay of 1, a rate of 1000 multiplies all weights by -999 in every step."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """Run a cluster of two nodes beside its head, with the dashboard that sweeps need."""
    with nodes(dashboard=True) as found:
        yield found


@pytest.fixture(scope="module")
def start(
    cluster: Nodes, moving_photograph: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Driver]:
    """Return a function that starts, or continues, a small sweep of a name on the cluster."""
    folder = tmp_path_factory.mktemp("tune")
    moving_photograph(folder / "source", {"a": 4, "b": 3}, split="train")
    moving_photograph(folder / "source", {"c": 3}, split="val")
    moving_photograph(folder / "source", {"d": 2}, split="held_out")
    sweep = folder / "sweep.yaml"
    sweep.write_text(
        f"""
sweep:
  space:
    train.lr: {{grid: [{GOOD}, {BAD}, {HOPELESS}]}}
  scheduler: asha
  grace: 0.1
  reduction: 2
  repeats: 1
"""
    )
    overrides = {
        "data.source": folder / "source",
        "data.shards": folder / "shards",
        "data.frames": 2,
        "model.blocks": 1,
        "train.lr": GOOD,
        "train.weight_decay": 1.0,
        "train.steps": STEPS,
        "train.checkpoint_every": 2,
        "train.validate_every": 2,
        "train.max_bad_steps": 0,
        "train.cpus_per_worker": CPUS_PER_WORKER,
    }
    command = ("tune", "--config", sweep, "--base", "configs/debug.yaml")

    def run(name: str) -> Driver:
        log = folder / f"{name}-{time.monotonic():.0f}.log"
        return Driver(cluster.address, folder / "runs" / name, overrides, log, command)

    return run


def rows(sweep: Path) -> dict[str, str]:
    """Return the text of the rows that are written."""
    return {
        path.parent.name: path.read_text() for path in sorted(sweep.glob("trials/*/result.json"))
    }


def left_on(cluster: Nodes) -> list[str]:
    """Name the actors and placement groups that jobs have left."""
    api = {"address": cluster.address, "limit": 1000}
    groups = [f"placement group {g.state}" for g in list_placement_groups(**api)]
    actors = [
        f"{actor.class_name} {actor.state}"
        for actor in list_actors(**api)
        if actor.class_name not in RAYS_OWN
    ]
    return [name for name in (*groups, *actors) if not name.endswith(("REMOVED", "DEAD"))]


def check_finished(driver: Driver, before: dict[str, str]) -> dict[str, str]:
    """Wait for the end of the sweep; check its files, and that it kept the rows `before`."""
    assert driver.end() == 1, driver.said
    after = rows(driver.run)
    assert after | before == after
    states = {name: json.loads(text)["state"] for name, text in after.items()}
    assert states == {
        "baseline-seed0": "done",
        "trial-000": "done",
        "trial-001": "stopped",
        "trial-002": "failed",
    }
    assert "trial-002 failed: loss or gradients are not finite" in driver.said
    assert json.loads(after["trial-001"])["steps"] == 2

    results = json.loads((driver.run / "results.json").read_text())
    assert results["complete"] and results["best"]["settings"] == {"train.lr": GOOD}
    with (driver.run / "results.csv").open() as file:
        assert {row["name"] for row in csv.DictReader(file)} == set(states)
    best = load_config(driver.run / "best.yaml")
    assert best.sweep is None and best.train.lr == GOOD
    page = (driver.run / "report.html").read_text()
    assert all(name in page for name in states)
    assert (driver.run / "best" / "report.html").is_file()
    return after


def check_nothing_is_left(cluster: Nodes) -> None:
    """Wait until the cluster holds no actors and placement groups of jobs."""
    deadline = time.monotonic() + 60
    while found := left_on(cluster):
        assert time.monotonic() < deadline, found
        time.sleep(1)


@pytest.mark.timeout(600)
def test_a_killed_sweep_runs_what_is_missing(
    start: Callable[[str], Driver], cluster: Nodes
) -> None:
    driver = start("killed")
    first = driver.run / "trials" / "trial-000"
    driver.until(lambda: last_step(first) >= 1)
    driver.kill()
    before = rows(driver.run)
    assert list(before) == ["baseline-seed0"]
    check_finished(start("killed"), before)
    check_nothing_is_left(cluster)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_sweep_goes_on_after_all_that_can_end_it(
    start: Callable[[str], Driver], cluster: Nodes
) -> None:
    driver = start("disasters")
    sweep = driver.run
    baseline = sweep / "trials" / "baseline-seed0"

    # Stopped: the trial saves, and has no row.
    driver.until(lambda: last_step(baseline) >= 3)
    driver.process.send_signal(signal.SIGTERM)
    assert driver.end() == 128 + signal.SIGTERM
    assert "continues the sweep" in driver.said and not rows(sweep)
    saved = max(path.name for path in (baseline / "checkpoints").iterdir())
    assert int(saved.removeprefix("step_")) >= 3

    # Killed, with one trial done and another one on its way.
    driver = start("disasters")
    first = sweep / "trials" / "trial-000"
    driver.until(lambda: last_step(first) >= 1)
    driver.kill()
    before = rows(sweep)
    assert list(before) == ["baseline-seed0"]

    # Robbed of a node.
    driver = start("disasters")
    driver.until(lambda: last_step(first) >= 3)
    cluster.lose(3)
    cluster.add(4)
    after = check_finished(driver, before)

    # Nothing is left on the cluster, and nothing is run again.
    check_nothing_is_left(cluster)
    driver = start("disasters")
    assert driver.end() == 1 and rows(sweep) == after
