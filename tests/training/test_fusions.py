"""Every fusion trains: sharded over a process group, through the step of a training run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vrtspike.config import load_config
from vrtspike.model import build_model
from vrtspike.training.parallel import full_weights, parallelize

FUSIONS = ("temporal", "window", "concat", "early")


def trained(model: nn.Module, clip: tuple[Tensor, Tensor]) -> nn.Module:
    """Take two steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        (model(*clip) - clip[0].flip(-1)).abs().mean().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
    return model


@pytest.mark.parametrize("fusion", FUSIONS)
def test_sharded_equals_plain(fusion: str, repository: Path, alone: None) -> None:
    overrides = [
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
    clip = (torch.rand(1, 2, 3, 16, 16), torch.rand(1, 3, 4, 8, 8))
    plain, sharded = build_model(settings), build_model(settings)
    sharded.load_state_dict(plain.state_dict())
    parallelize(sharded, torch.device("cpu"), compile_blocks=False, reshard=True)
    trained(plain, clip)
    weights = full_weights(trained(sharded, clip))
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-4, atol=1e-6)
