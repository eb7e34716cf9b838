"""Small models and clips for the tests of the model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vrtspike.settings import ModelSettings, SpikeBranchSettings

TINY = ModelSettings(
    channels=8,
    refine_channels=8,
    blocks=2,
    mutual_ratio=0.5,
    refine_blocks=2,
    refine_groups=(1, 1),
    heads=2,
    window=(2, 4, 4),
    mlp_ratio=1.0,
    drop_path=0.0,
    deformable_groups=2,
    flow_channels=(8, 8, 8, 8),
    spike=SpikeBranchSettings(bins=4, heads=2, blocks=1),
)


@pytest.fixture
def tiny() -> ModelSettings:
    return TINY


@pytest.fixture
def clip() -> tuple[Tensor, Tensor]:
    """Blurred frames (2, 3, 3, 32, 40) and voxels (2, 3, 4, 32, 40)."""
    generator = torch.Generator().manual_seed(0)
    blurred = torch.rand(2, 3, 3, 32, 40, generator=generator)
    return blurred, torch.rand(2, 3, 4, 32, 40, generator=generator)
