"""`vrtspike checkpoints` and `vrtspike export`: what they tell, write and refuse."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import nn
from typer.testing import CliRunner, Result

from tests.checkpoints.test_manifest import Run, flip_a_bit, run
from tests.training.conftest import alone, make_sharded, sharded
from vrtspike.checkpoints.manifest import checkpoint_folder
from vrtspike.checkpoints.read_write import CheckpointWriter
from vrtspike.checkpoints.snapshot import SnapshotBuffer
from vrtspike.cli.app import app
from vrtspike.config.config import Config
from vrtspike.config.loader import dump_config
from vrtspike.runs.export import export_metadata, write_export
from vrtspike.runs.folder import checkpoints_of
from vrtspike.runs.paths import CONFIG, EXPORT
from vrtspike.storage.folder import Folder
from vrtspike.training.parallel import full_weights, reshard_all

__all__ = ["alone", "make_sharded", "run", "sharded"]
SETTINGS = Config()


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)


@pytest.fixture
def trained(run: Run, sharded: nn.Module, tmp_path: Path) -> Path:
    """Return a run's folder with checkpoints of steps 1 to 3 and the export of step 3."""
    folder = Folder.at(tmp_path / "run")
    folder.write(CONFIG, dump_config(SETTINGS).encode())
    writer = CheckpointWriter(checkpoints_of(folder), dist.group.WORLD)
    facts = {"config": SETTINGS.model_dump(mode="json"), "best": [30.0, 2]}
    for step in (1, 2, 3):
        run.train(step - 1, step)
        writer.write(step, SnapshotBuffer().copy(run.state.collect()), facts)
    # As a worker exports.
    with run.average.in_place_of_weights():
        weights = full_weights(sharded)
        reshard_all(sharded)
    write_export(folder, EXPORT, weights, export_metadata(SETTINGS, 3))
    return folder.path


def vrtspike(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert "Traceback" not in result.output
    return result


def refused(*arguments: object) -> str:
    """Run a command that must be refused; return its one line."""
    result = vrtspike(*arguments)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def step(run: Path, number: int) -> Folder:
    return checkpoint_folder(Folder.at(run / "checkpoints"), number)


def content(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(file, framework="pt") as source:
        return {key: source.get_tensor(key) for key in source.keys()}, source.metadata()  # noqa: SIM118


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_checkpoints_are_listed_with_their_state(trained: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = vrtspike("checkpoints", trained, "--json", report)
    assert result.exit_code == 0, result.output
    rows = json.loads(report.read_text())["checkpoints"]
    assert [(row["step"], row["state"], row["best"], row["world_size"]) for row in rows] == [
        (3, "whole", False, 1),
        (2, "whole", True, 1),
        (1, "whole", False, 1),
    ]
    assert all(
        row["bytes"] == sum(f.stat().st_size for f in step(trained, row["step"]).path.iterdir())
        for row in rows
    )
    flip_a_bit(step(trained, 3))
    step(trained, 1).remove("manifest.json")
    result = vrtspike("checkpoints", trained, "--quick")
    assert result.exit_code == 0, result.output
    result = vrtspike("checkpoints", trained, "--json", report)
    assert result.exit_code == 1
    rows = json.loads(report.read_text())["checkpoints"]
    assert [row["state"] for row in rows] == ["damaged", "whole", "partial"]
    assert "SHA-256" in rows[0]["problem"] and "no manifest" in rows[2]["problem"]
    assert all(word in result.stdout for word in ("damaged", "partial", "whole", "best"))


def test_a_place_that_is_no_run_is_refused(tmp_path: Path) -> None:
    assert "no run here" in refused("checkpoints", tmp_path)
    assert "no folder" in refused("export", tmp_path / "none")
    (tmp_path / CONFIG).write_text("")
    result = vrtspike("checkpoints", tmp_path)
    assert result.exit_code == 0 and "no checkpoints" in result.stdout
    assert "no checkpoint yet" in refused("export", tmp_path)


def test_export_is_what_the_run_itself_exports(trained: Path, run: Run) -> None:
    expected, metadata = content(trained / EXPORT)
    own = trained / "own.safetensors"
    for more in ((), ("--step", 3), ("--weights", "averaged")):
        assert vrtspike("export", trained, "--out", own, *more).exit_code == 0
        found, same = content(own)
        assert_equal(found, expected)
        assert same == metadata and set(same) == {"config", "step"}
    (trained / EXPORT).unlink()
    assert vrtspike("export", trained).exit_code == 0
    assert_equal(content(trained / EXPORT)[0], expected)
    assert vrtspike("export", trained, "--weights", "raw", "--out", own).exit_code == 0
    assert_equal(content(own)[0], full_weights(run.model))
    assert not all(torch.equal(content(own)[0][key], expected[key]) for key in expected)


def test_export_passes_over_what_is_damaged(trained: Path, tmp_path: Path) -> None:
    flip_a_bit(step(trained, 3))
    out = tmp_path / "out.safetensors"
    result = vrtspike("export", trained, "--out", out)
    assert result.exit_code == 0 and content(out)[1]["step"] == "2"
    assert "passed over" in result.stderr and "step_00000003" in result.stderr
    assert "damaged rank_00000" in refused("export", trained, "--step", 3)
    assert "one of 1, 2, 3" in refused("export", trained, "--step", 7)


def test_export_without_averages(trained: Path, run: Run, tmp_path: Path) -> None:
    state = {k: v for k, v in run.state.collect().items() if not k.startswith("average/")}
    writer = CheckpointWriter(Folder.at(trained / "checkpoints"), dist.group.WORLD)
    facts = {"config": SETTINGS.model_dump(mode="json"), "best": None}
    writer.write(4, SnapshotBuffer().copy(state), facts)
    out = tmp_path / "out.safetensors"
    assert "has no averaged weights" in refused("export", trained, "--weights", "averaged")
    assert vrtspike("export", trained, "--out", out).exit_code == 0
    assert_equal(content(out)[0], full_weights(run.model))
    writer.write(5, SnapshotBuffer().copy(state), facts | {"config": {"train": {"unknown": 1}}})
    assert "not one of this version" in refused("export", trained)


def test_a_run_in_a_store(
    trained: Path, upload: Callable[[Path, str], str], tmp_path: Path
) -> None:
    uri = upload(trained, tmp_path.name)
    result = vrtspike("checkpoints", uri)
    assert result.exit_code == 0 and result.stdout.count("whole") == 3
    result = vrtspike("export", uri, "--out", tmp_path / "own.safetensors")
    assert result.exit_code == 0, result.output
    assert_equal(content(tmp_path / "own.safetensors")[0], content(trained / EXPORT)[0])
    assert vrtspike("export", uri, "--step", 1).exit_code == 0
    (tmp_path / "first").write_bytes(Folder.at(uri).read(EXPORT))
    assert content(tmp_path / "first")[1]["step"] == "1"
    assert "secret" not in result.output
