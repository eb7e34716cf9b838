"""`vrtspike evaluate` refuses what cannot be scored in one line that says what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from vrtspike.cli import app
from vrtspike.config import dump_config, load_config
from vrtspike.model import build_model


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, moving_photograph: Callable[..., Path]
) -> Path:
    return moving_photograph(tmp_path_factory.mktemp("data"), {"a": 2}, size=(40, 48))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> dict[str, Path]:
    """Return run folders of untrained models, with spikes and without."""
    root, found = tmp_path_factory.mktemp("runs"), {}
    for name, fusion in (("fused", "temporal"), ("baseline", "none")):
        torch.manual_seed(0)
        given = [f"model.fusion={fusion}"]
        config = load_config(repository / "configs" / "debug.yaml", given)
        found[name] = root / name
        (root / name / "export").mkdir(parents=True)
        save_file(build_model(config.model).state_dict(), root / name / "export/model.safetensors")
        (root / name / "config.yaml").write_text(dump_config(config))
    return found


@pytest.fixture
def refused(repository: Path, folder: Path) -> Callable[..., str]:
    """Return a function that runs the command, and gives the one line with which it refuses."""

    def run(*asked: object) -> str:
        config = ["--config", str(repository / "configs" / "debug.yaml")]
        data = (
            [] if any("data.source" in str(word) for word in asked) else [f"data.source={folder}"]
        )
        result = CliRunner().invoke(app, ["evaluate", *config, *map(str, asked), *data])
        assert result.exit_code == 2, result.output
        (line,) = result.stderr.strip().splitlines()[-1:]
        assert "Traceback" not in result.output and line.startswith("vrtspike: ")
        return line

    return run


def test_an_output_that_is_a_file_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    assert "this is no folder" in refused("--out", tmp_path / "out")
    line = refused("--out", tmp_path / "out" / "below")
    assert "this is no folder" in line and str(tmp_path / "out") in line


def test_a_split_that_is_not_there_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    line = refused("--out", tmp_path / "out", "evaluation.split=neverland")
    assert "neverland" in line and "held_out" in line


def test_weights_of_another_model_are_refused(
    refused: Callable[..., str], runs: dict[str, Path], tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(runs["fused"], mixed)
    shutil.copy(runs["baseline"] / "export/model.safetensors", mixed / "export")
    line = refused("--fused", mixed, "--out", tmp_path / "out")
    assert "weights are not those" in line and str(mixed) in line and "missing" in line


def test_weights_that_give_no_numbers_are_refused(
    refused: Callable[..., str], runs: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(runs["baseline"], broken)
    file = broken / "export" / "model.safetensors"
    weights = load_file(file)
    save_file(weights | {"conv_last.bias": torch.full((3,), float("nan"))}, file)
    line = refused("--baseline", broken, "--out", tmp_path / "out")
    assert "not finite" in line and "baseline, " in line and "held_out/a" in line


def test_a_model_of_spikes_needs_spikes(
    refused: Callable[..., str], folder: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    blind = tmp_path / "blind"
    shutil.copytree(folder, blind)
    (blind / "dataset.yaml").write_text("frame: {height: 40, width: 48}\nsource: no camera\n")
    where = (f"data.source={blind}", "--out", tmp_path / "out")
    line = refused("--fused", runs["fused"], *where)
    assert "held_out/a" in line and "spike bins" in line and "Fix:" in line


def test_robustness_needs_a_model_of_spikes(
    refused: Callable[..., str], runs: dict[str, Path], tmp_path: Path
) -> None:
    line = refused("--baseline", runs["baseline"], "--robustness", "--out", tmp_path / "out")
    assert "evaluation.robustness" in line and "--fused" in line
    assert not (tmp_path / "out").exists()


def test_a_sequence_without_sharp_frames_is_refused(
    refused: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    blind = tmp_path / "blind"
    shutil.copytree(folder, blind)
    shutil.rmtree(blind / "held_out" / "a" / "sharp")
    line = refused(f"data.source={blind}", "--out", tmp_path / "out")
    assert "sharp" in line and "held_out/a" in line
