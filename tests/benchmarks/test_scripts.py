"""Each script of `benchmarks/` runs, and its figures are what they say. No times here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DEBUG = "configs/debug.yaml"


@pytest.fixture
def figures(repository: Path, tmp_path: Path) -> Any:
    """Return a function that runs a script and returns its tables."""

    def run(script: str, *arguments: object) -> dict[str, list[dict[str, Any]]]:
        file = tmp_path / "figures.json"
        command = [
            sys.executable,
            f"benchmarks/{script}",
            *map(str, arguments),
            "--json",
            str(file),
        ]
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads(file.read_text())
        assert found.pop("machine") in done.stdout
        assert all(title in done.stdout for title in found)
        return dict(found)

    return run


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("reshard", ["true", "false"])
def test_workers_send_what_the_model_of_a_step_says(
    figures: Any, tmp_path: Path, reshard: str
) -> None:
    settings = [f"train.reshard={reshard}", "train.batch=4", "train.accumulation=2"]
    settings += [f"run.root={tmp_path}/runs"]
    tables = figures("scaling.py", "--config", DEBUG, *settings, "--workers", 2, "--tiny")
    rows = {row["kind"]: row for row in tables["scaling"]}
    assert [(row["workers"], row["samples"]) for row in rows.values()] == 3 * [(2, 4)]
    for kind in ("weak", "strong"):
        assert rows[kind]["gather MB"] > 0 and rows[kind]["in collectives"] > 0
        assert rows[kind]["gather MB"] == pytest.approx(rows[kind]["gather MB, model"])
        assert rows[kind]["scatter MB"] == pytest.approx(rows[kind]["scatter MB, model"])
    assert rows["apart"]["gather MB"] == rows["apart"]["gather MB, model"] == 0
    (saving,) = tables["a checkpoint of 2 workers"]
    assert saving["the loop waits, s"] > 0 and saving["until it is whole, s"] > 0
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_memory_of_restoring_keeps_its_bound_and_does_not_grow(figures: Any) -> None:
    arguments = ["--config", "configs/presets/tiny.yaml", "--frames", 6, 24, "--workers", 1]
    arguments += ["--memory", "1.2GB", "--size", 40, 48, "--tiny"]
    short, long, _, bound, sized = figures("restoring.py", *arguments)["restoring"]
    assert long["peak MB"] < 1.1 * short["peak MB"]
    assert bound["of the bound"] == pytest.approx(bound["peak MB"] / 1200)
    assert bound["of the bound"] <= 1.1
    assert sized["without starts"] >= sized["frames/s"] > 0


@pytest.mark.slow
def test_all_ways_to_find_motion_are_measured(figures: Any, stand_ins: Path) -> None:
    scenes = ["scenes.height=64", "scenes.width=64"]
    arguments = ["--config", DEBUG, *scenes, "--weights", stand_ins / "flow.safetensors"]
    rows = figures("flow.py", *arguments, "--scenes", 1)["held-out scenes"]
    errors = {(row["pairs"], row["method"]): row["error"] for row in rows}
    assert {method for _, method in errors} == {"no motion", "TV-L1", "DIS", "network"}
    # Whose error is the length of the motion, which DIS finds.
    assert 0 < errors["sharp", "DIS"] < errors["sharp", "no motion"]


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_the_way_of_the_data_is_measured(figures: Any) -> None:
    tables = figures("data.py", "--tiny", "--cores", 1, "--clips", 9, "--batches", 8)
    ways = {row["way"]: row for row in tables["a whole stream of packed spikes"]}
    assert ways["voxelize_stream"]["over voxelize_stream"] == 1
    for row in ways.values():
        assert row["Gbit/s"] == pytest.approx(16 * 32 * 32 / row["ms"] / 1e6)
    few, many = tables["the pipeline, from shards"]
    assert (few["clips"], many["clips"]) == (2, 9)
    # Frames, and counts in float16, of one sample.
    size = 2 * (2 * 3 * 32 * 32) + 2 * 2 * 8 * 16 * 16
    for row in (few, many):
        assert row["MB/s"] == pytest.approx(row["samples/s"] * size / 1e6)
        assert row["peak MB"] > 0


@pytest.mark.slow
def test_the_gpu_script_runs_dry(figures: Any) -> None:
    tables = figures("gpu.py", "--dry")
    assert list(tables) == ["parity", "step", "frame", "batch", "alignment"]
    by_precision = {row["precision"]: row for row in tables["parity"]}
    assert by_precision["float32"]["output differs"] == 0  # the CPU is its own reference
    assert 0 < by_precision["bfloat16"]["output differs"] < 0.05
    assert all(row["step ms"] > row["forward ms"] > 0 for row in tables["step"])
