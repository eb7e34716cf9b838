"""Every fusion trains: sharded over a process group, through the step of a training run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.training.conftest import MakeSharded
from vrtspike.config.loader import load_config
from vrtspike.model import build_model
from vrtspike.training.parallel import full_weights

FUSIONS = ("temporal", "window", "concat", "early")
GUESS = "model.guess={channels: 8, blocks: 1}"
GUIDED = [GUESS, "model.patch=2", "model.flow_from=guess"]
ALONE = [GUESS, "model.trunk=false"]


def trained(model: nn.Module, clip: tuple[Tensor, Tensor], idle: bool) -> nn.Module:
    """Take two steps; `idle`: the flow network's finest level is finer than patches of 2."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        (model(*clip) - clip[0].flip(-1)).abs().mean().backward()
        without = {name for name, weight in model.named_parameters() if weight.grad is None}
        finest = {name for name, _ in model.named_parameters() if "spynet.basic_module.5." in name}
        assert without == (finest if idle else set())
        optimizer.step()
    return model


@pytest.mark.parametrize(
    ("fusion", "more"),
    [
        *((fusion, []) for fusion in FUSIONS),
        ("temporal", GUIDED),
        ("none", GUIDED),
        ("temporal", ALONE),
    ],
)
def test_sharded_equals_plain(
    fusion: str, more: list[str], repository: Path, make_sharded: MakeSharded
) -> None:
    overrides = [
        *more,
        f"model.fusion={fusion}",
        "model.channels=8",
        "model.refine_channels=8",
        "model.spike.bins=4",
        "model.spike.window=4",
        "model.checkpoint_attention=true",
        "model.zero_init_output=false",
    ]
    settings = load_config(repository / "configs" / "model" / "small.yaml", overrides).model
    torch.manual_seed(0)
    plain = build_model(settings)
    torch.manual_seed(0)
    sharded = make_sharded(lambda: build_model(settings))
    clip = (torch.rand(1, 2, 3, 16, 16), torch.rand(1, 3, 4, 8, 8))
    for name, weight in full_weights(sharded).items():
        assert torch.equal(weight, plain.state_dict()[name])
    idle = "model.patch=2" in more
    trained(plain, clip, idle)
    weights = full_weights(trained(sharded, clip, idle))
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-4, atol=1e-6)
