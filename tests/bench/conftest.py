"""The small model of the model's tests."""

from __future__ import annotations

import pytest

from vrtspike.settings import ModelSettings, SpikeBranchSettings


@pytest.fixture
def tiny() -> ModelSettings:
    return ModelSettings(
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
