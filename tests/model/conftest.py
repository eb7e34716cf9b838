"""Small models and clips for the tests of the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vrtspike.model.vrt import VRT


@pytest.fixture(scope="session")
def make_golden_vrt(shared: Path) -> Callable[[], VRT]:
    """Return a function that builds the VRT of the reference values, with weights of its own."""
    config = torch.load(shared / "golden/vrt_tiny_params.pt", weights_only=True)["config"]
    return lambda: VRT(
        channels=config["embed_dims"][0],
        refine_channels=config["embed_dims"][-1],
        blocks=config["depths"][0],
        refine_blocks=config["depths"][-1],
        heads=config["num_heads"][0],
        deformable_groups=config["deformable_groups"],
        drop_path=0.0,
    )


@pytest.fixture
def clip() -> tuple[Tensor, Tensor]:
    """Blurred frames (2, 3, 3, 32, 40) and voxels (2, 3, 4, 32, 40)."""
    generator = torch.Generator().manual_seed(0)
    blurred = torch.rand(2, 3, 3, 32, 40, generator=generator)
    return blurred, torch.rand(2, 3, 4, 32, 40, generator=generator)
