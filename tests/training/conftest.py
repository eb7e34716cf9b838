"""A process group of one, and a model small enough to train in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from vrtspike.training.parallel import parallelize


class TwoBlocks(nn.Module):
    """Restore frames by two convolutions, one of which has the name of a flow network."""

    def __init__(self) -> None:
        super().__init__()
        self.spynet = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 3, 3, padding=1)
        self.unused = nn.Parameter(torch.ones(3))
        self.dropout = nn.Dropout(0.1)

    def blocks(self) -> list[nn.Module]:
        return [self.spynet, self.head]

    def forward(self, blurred: Tensor, voxels: Tensor | None = None) -> Tensor:
        frames = blurred.flatten(0, 1)
        change = self.head(torch.tanh(self.dropout(self.spynet(frames))))
        if voxels is not None:
            change = change * voxels.flatten(0, 1).mean(1, keepdim=True)
        return blurred + change.view(blurred.shape)


@pytest.fixture
def alone() -> Iterator[None]:
    """Run a process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def plain() -> TwoBlocks:
    """Return a model that is not sharded."""
    torch.manual_seed(0)
    return TwoBlocks()


@pytest.fixture
def sharded(alone: None) -> nn.Module:
    """Return the same model, sharded over one rank."""
    torch.manual_seed(0)
    return parallelize(TwoBlocks(), torch.device("cpu"), compile_blocks=False, reshard=True)
