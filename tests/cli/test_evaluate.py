"""`vrtspike evaluate` takes models by name and several datasets.

It refuses what cannot be scored in one line that says what to do.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from vrtspike.cli.app import app
from vrtspike.config.loader import dump_config, load_config
from vrtspike.model import build_model
from vrtspike.restoration.restorer import Restorer


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
def ships(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Path]:
    """Let the package hold the weights of the runs, by the names of those that ship."""
    folder, found = tmp_path / "packaged", {}
    folder.mkdir()
    for name, run in (("small", runs["fused"]), ("small-no-spike", runs["baseline"])):
        text = (run / "config.yaml").read_text()
        found[name] = folder / f"{name}.safetensors"
        weights = load_file(run / "export/model.safetensors")
        save_file(weights, found[name], metadata={"config": text})
    monkeypatch.setattr("vrtspike.weights.FOLDER", folder)
    return found


class Same(torch.nn.Module):
    """Return the blurred input."""

    def forward(self, blurred: torch.Tensor, voxels: torch.Tensor | None = None) -> torch.Tensor:
        return blurred


@pytest.fixture
def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return a function that runs the command and gives what --json holds.

    Models are loaded, and then give what untrained ones give, at no cost.
    """
    load = Restorer.load
    monkeypatch.setattr(
        Restorer, "load", lambda run, device: dataclasses.replace(load(run), model=Same())
    )

    def run(*asked: object) -> dict[str, Any]:
        words = ["evaluate", *map(str, asked), "--out", str(tmp_path / "out")]
        result = CliRunner().invoke(app, [*words, "--json", str(tmp_path / "found.json")])
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
        return found

    return run


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
    assert "held_out/a" in line and "a model with spikes" in line and "Fix:" in line


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


CONTROLS = ["blurred", "tfp", "tfi", "sdm"]


def test_without_models_those_that_ship_are_scored_and_no_configuration_is_needed(
    evaluated: Callable[..., dict[str, Any]], folder: Path, ships: dict[str, Path], tmp_path: Path
) -> None:
    found = evaluated(f"data.source={folder}")
    assert list(found["held_out"]) == [*CONTROLS, "baseline", "fused"]
    weights = {name: facts["weights"] for name, facts in found["protocol"]["models"].items()}
    assert weights == {"baseline": "small-no-spike (packaged)", "fused": "small (packaged)"}
    assert (tmp_path / "out" / "results.json").is_file()


def test_weights_that_do_not_ship_are_missed(
    refused: Callable[..., str], ships: dict[str, Path], tmp_path: Path
) -> None:
    ships["small"].unlink()
    assert "no such run folder or weights" in refused("--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_report_on_a_file_of_weights_is_not_written_into_the_file(
    folder: Path, ships: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = shutil.copy(ships["small"], tmp_path / "mine.safetensors")
    words = ["evaluate", "--fused", str(weights), f"data.source={folder}", "run.name=x"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "runs" / "x" / "results.json").is_file()


def test_all_datasets_are_looked_at_before_the_first_is_scored(
    refused: Callable[..., str], folder: Path, another: Path, ships: dict[str, Path], tmp_path: Path
) -> None:
    blind = shutil.copytree(folder, tmp_path / "blind")
    shutil.rmtree(blind / "held_out" / "a" / "sharp")
    sources = ("--source", folder, "--source", blind)
    assert "sharp" in refused(*sources, "--out", tmp_path / "out")
    disturb = ("--weights", "none", "--robustness")
    line = refused("--source", folder, "--source", another, *disturb, "--out", tmp_path / "out")
    assert "evaluation.robustness" in line
    assert not (tmp_path / "out").exists()


def test_weights_none_leaves_the_controls(
    evaluated: Callable[..., dict[str, Any]], folder: Path, ships: dict[str, Path]
) -> None:
    assert list(evaluated("--weights", "none", "--source", folder)["held_out"]) == CONTROLS


def test_names_go_before_folders_and_models_beside_have_names(
    evaluated: Callable[..., dict[str, Any]],
    folder: Path,
    runs: dict[str, Path],
    ships: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs["baseline"], tmp_path / "small")  # a folder of the same name
    beside = ("--beside", "small-no-spike", "--beside", "./small", "--beside", runs["fused"])
    found = evaluated("--weights", "small", *beside, f"data.source={folder}")
    models = found["protocol"]["models"]
    others = ["small-no-spike (packaged)", "small", str(runs["fused"])]
    assert list(models) == ["fused", *others]
    assert list(found["held_out"]) == [*CONTROLS, *models]
    spikes = [facts["spikes"] is not None for facts in models.values()]
    assert spikes == [True, False, False, True]
    scores = (tmp_path / "out" / "results.csv").read_text()
    assert all(scores.count(f",{name},") == 2 for name in models)
    assert "small-no-spike (packaged)" in (tmp_path / "out" / "report.html").read_text()


def test_a_model_named_twice_is_refused(
    refused: Callable[..., str], ships: dict[str, Path], tmp_path: Path
) -> None:
    line = refused("--beside", "small", "--beside", "small", "--out", tmp_path / "out")
    assert "--beside" in line and "twice" in line and "small" in line


def test_spikes_of_models_beside_are_not_disturbed(
    evaluated: Callable[..., dict[str, Any]],
    folder: Path,
    ships: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vrtspike.evaluation import robustness

    few = robustness.DISTURBANCES[:1]
    monkeypatch.setattr(robustness, "DISTURBANCES", few)
    monkeypatch.setattr(robustness, "KINDS", (few[0].kind,))
    monkeypatch.setattr(robustness, "levels_of", lambda kind: (1.0, few[0].level))
    found = evaluated("--beside", "small", "--robustness", "--source", folder)["robustness"]
    assert list(found["models"]) == ["fused"] and found["reference"] == "baseline"


@pytest.fixture(scope="module")
def another(
    tmp_path_factory: pytest.TempPathFactory, moving_photograph: Callable[..., Path]
) -> Path:
    place = tmp_path_factory.mktemp("more") / "two datasets"
    return moving_photograph(place, {"b": 2, "c": 2}, size=(40, 48))


def test_several_datasets_have_a_folder_each(
    evaluated: Callable[..., dict[str, Any]],
    folder: Path,
    another: Path,
    ships: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    sources = ("--source", folder, "--source", another)
    found = evaluated(*sources, "evaluation.luma=true")
    assert list(found["sources"]) == [folder.name, "two-datasets"]
    for name, facts in found["sources"].items():
        written = json.loads((tmp_path / "out" / name / "results.json").read_text())
        assert written == facts and (tmp_path / "out" / name / "report.html").is_file()
    assert found["sources"]["two-datasets"]["protocol"]["sequences"] == 2


def test_datasets_of_one_name_are_refused(
    refused: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / folder.name)
    sources = ("--source", folder, "--source", tmp_path / folder.name)
    line = refused(*sources, "--out", tmp_path / "out")
    assert "--source" in line and folder.name in line and not (tmp_path / "out").exists()


def test_a_dataset_that_is_not_there_is_refused_before_another_is_scored(
    refused: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    sources = ("--source", folder, "--source", tmp_path / "nowhere")
    assert "nowhere" in refused(*sources, "--weights", "none", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
