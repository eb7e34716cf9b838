"""What `vrtspike describe` tells of a configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from vrtspike.bench.describe import describe
from vrtspike.cli.app import app
from vrtspike.config.config import Config
from vrtspike.config.loader import load_config
from vrtspike.config.model import ModelSettings
from vrtspike.model import build_model
from vrtspike.model.costs import Clip, Costs

OVERRIDES = ["data.crop=64", "data.frames=2", "train.gpu=false", "train.batch=8"]


def configuration(repository: Path, *overrides: str) -> Config:
    return load_config(repository / "configs/model/small.yaml", [*OVERRIDES, *overrides])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count without running a model: 100 bytes a clip, less what is recomputed."""

    def measure(settings: ModelSettings, clip: Clip, **_: object) -> Costs:
        recomputed = 30 * settings.checkpoint_attention + 50 * settings.checkpoint_mlp
        return Costs((), (100 - recomputed) * clip.batch)

    monkeypatch.setattr("vrtspike.bench.describe.measure_costs", measure)


@pytest.mark.usefixtures("counted")
def test_a_worker_holds_its_share_of_the_state(repository: Path) -> None:
    config = configuration(repository, "train.workers=4", "train.ema=0.9", "train.reshard=false")
    found = describe(config)
    size = sum(4 * p.numel() for p in build_model(config.model).parameters())
    state = found.state
    assert state.weights == state.gradients == state.average == -(-size // 4)
    assert state.moments == 2 * state.weights
    assert state.gathered == size
    assert found.clip.batch == 2
    assert found.peak == found.costs.activations + state.total


@pytest.mark.usefixtures("counted")
def test_micro_batches_divide_the_activations_and_keep_gradients_whole(repository: Path) -> None:
    one = describe(configuration(repository))
    four = describe(configuration(repository, "train.accumulation=4"))
    assert (one.clip.batch, four.clip.batch) == (8, 2)
    assert four.costs.activations == one.costs.activations / 4
    assert four.state.gradients == one.state.gradients
    assert one.state.gathered < one.state.weights


@pytest.mark.usefixtures("counted")
def test_activations_with_and_without_checkpointing(repository: Path) -> None:
    found = describe(configuration(repository, "model.checkpoint_mlp=true"))
    assert found.costs.activations == 8 * 50
    assert found.activations_kept == 8 * 100
    assert found.activations_recomputed == 8 * 20


@pytest.mark.usefixtures("counted")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_says_where_it_counted_when_there_is_no_gpu(repository: Path) -> None:
    found = describe(configuration(repository, "train.gpu=true"))
    assert found.device == "cpu" and "no GPU" in found.note


@pytest.mark.slow
def test_the_command_writes_what_it_shows(repository: Path, tmp_path: Path) -> None:
    config, facts = repository / "configs/model/small.yaml", tmp_path / "facts.json"
    arguments = ["describe", "--config", str(config), *OVERRIDES, "--json", str(facts)]
    result = CliRunner().invoke(app, [*arguments, "--gpus", "16", "--tflops", "50"])
    assert result.exit_code == 0, result.output
    written = json.loads(facts.read_text())
    assert 0 < written["spike_share"]["flops"] < 0.5
    assert f"{written['parameters']:,}" in result.output
    assert "8x2x64x64" in result.output
    assert [step["shard_over"] for step in written["predictions"]] == ["all", "node"]
    assert written["predictions"][0]["samples"] == 16 * 8
    assert "50 TFLOP/s" in result.output
