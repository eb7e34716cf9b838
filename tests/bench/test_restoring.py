"""`vrtspike bench restore` runs the command itself, and says what it took."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vrtspike.bench.restoring import RestoreCase, RestorePlan
from vrtspike.cli.app import app


def test_a_plan_varies_one_thing_in_each_group() -> None:
    plan = RestorePlan((96, 96), (100, 1000), (1, 2), 500, (10**9,), (272, 640))
    groups = plan.groups
    assert [case.frames for case in groups["length"]] == [100, 1000]
    assert {case.threads for case in groups["workers"]} == {1}
    assert [case.workers for case in groups["workers"]] == [1, 2]
    (bound,) = groups["bound"]
    assert bound == RestoreCase(272, 640, 12, bound=10**9)
    assert bound.arguments == ["--workers", "1", "--memory", "1000000000"]
    assert not groups["speed"]


def test_a_machine_with_a_gpu_is_asked_for_what_it_can_do() -> None:
    """`vrtspike restore` refuses threads, and more workers than GPUs, where it computes on GPUs."""
    plan = RestorePlan((96, 96), (100,), (1,), 500, (), (272, 640), gpus=1, speed_size=(720, 1280))
    (worker,) = plan.groups["workers"]
    assert (worker.workers, worker.threads) == (1, None)
    assert plan.groups["speed"] == [RestoreCase(720, 1280, 48)]


@pytest.mark.slow
def test_cases_are_measured_and_bounds_are_kept(repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    command = [
        *("bench", "restore", "--config", str(repository / "configs/presets/tiny.yaml")),
        *("--size", "32", "32", "--frames", "6", "--frames", "24", "--workers", "1"),
        *("--worker-frames", "6", "--memory", "1.2GB", "--bound-size", "160", "200"),
        *("--speed-size", "40", "48"),
        *("--json", str(file)),
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    found = json.loads(file.read_text())
    short, long = found["groups"]["length"]
    assert long["peak_bytes"] < 1.1 * short["peak_bytes"]
    (bound,) = found["groups"]["bound"]
    assert bound["peak_bytes"] <= 1.1 * 1.2e9
    for each in (short, long, bound, *found["groups"]["workers"], *found["groups"]["speed"]):
        assert 0 < each["busy_s"] <= each["seconds"]
    assert found["computed_twice"] == pytest.approx(1.347, abs=0.001)
