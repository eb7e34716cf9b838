"""Weights that ship with the package are found by their names, and are in what is installed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open

from vrtspike import weights
from vrtspike.model.flow_network import read_flow_network
from vrtspike.restoration.restorer import Restorer
from vrtspike.weights import DEFAULT, FLOW, WITHOUT_SPIKES, names, or_by_name, packaged


def test_names_are_those_of_the_files_that_are_there(packaged_weights: Path) -> None:
    assert names() == ("flow", "small", "small-no-spike")
    assert packaged("small") == packaged_weights / "small.safetensors"


@pytest.mark.usefixtures("packaged_weights")
@pytest.mark.parametrize("path", ["./small", "small.safetensors", "/small", "a/small", "", "large"])
def test_a_path_is_no_name(path: str) -> None:
    assert packaged(path) is None


@pytest.mark.usefixtures("packaged_weights")
def test_an_error_names_what_could_be_meant() -> None:
    assert or_by_name("x") == "x, or take packaged weights: flow, small, small-no-spike"
    assert FLOW not in or_by_name("x", models=True)


def test_the_files_are_in_what_is_installed(repository: Path) -> None:
    """setuptools leaves out files that are no modules, unless they are listed."""
    package = repository / "vrtspike"
    assert package / "weights" == weights.FOLDER
    settings = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    listed = settings["tool"]["setuptools"]["package-data"]["vrtspike"]
    assert {"weights/*.safetensors", "weights/PROVENANCE.md"} <= set(listed)
    others = [p for p in (package / "weights").iterdir() if p.is_file() and p.suffix != ".py"]
    found = {path for pattern in listed for path in package.glob(pattern)}
    assert set(others) <= found
    assert sum(path.stat().st_size for path in others) <= 12e6
    assert not names() or (package / "weights/PROVENANCE.md").is_file()


def test_what_ships_is_what_its_names_say() -> None:
    """The real files: both models load whole, and hold no path of who trained them."""
    assert names() == ("flow", DEFAULT, WITHOUT_SPIKES)
    fused, plain = (Restorer.load(name) for name in (DEFAULT, WITHOUT_SPIKES))
    assert fused.spikes is not None and plain.spikes is None
    read_flow_network(weights.FOLDER / "flow.safetensors")  # refuses what lacks a tensor
    for name in names():
        with safe_open(weights.FOLDER / f"{name}.safetensors", "pt") as file:
            config = yaml.safe_load(file.metadata()["config"])
        assert "/" not in {config["run"]["root"][0], str(config["data"]["source"])[0]}
