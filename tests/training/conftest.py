"""A process group of one, and a model small enough to train in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.training.two_blocks import TwoBlocks
from vrtspike.training.parallel import parallelize

MakeSharded = Callable[[Callable[[], nn.Module]], nn.Module]


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
def make_sharded(alone: None) -> MakeSharded:
    """Return a function that shards what a builder makes over one rank."""

    def make(build: Callable[[], nn.Module]) -> nn.Module:
        return parallelize(build, torch.device("cpu"), compile_blocks=False, reshard=True)

    return make


@pytest.fixture
def sharded(make_sharded: MakeSharded) -> nn.Module:
    """Return the model of `plain`, sharded over one rank."""
    torch.manual_seed(0)
    return make_sharded(TwoBlocks)
