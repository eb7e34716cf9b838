"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vrtspike.settings import ModelSettings, SpikeBranchSettings

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real data beside the checkout, or skip."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("real data: no folder ../shared beside this checkout")
    return folder


@pytest.fixture
def tiny() -> ModelSettings:
    """Return the settings of a model with every part, as small as parts can be."""
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


@pytest.fixture(scope="session")
def moving_photograph() -> Callable[..., Path]:
    """Return a function that writes a dataset folder of a photograph that moves."""
    return write_moving_photograph


def write_moving_photograph(
    root: Path,
    sequences: dict[str, int],
    *,
    split: str = "held_out",
    size: tuple[int, int] = (40, 48),
    pixels_a_frame: int = 8,
    threshold: float = 2.0,
) -> Path:
    """Write sequences {name: frames} of 64 steps a frame, 56 of them exposed; return the root."""
    import numpy as np
    from PIL import Image
    from skimage import data

    from vrtspike.data.dat import write_dat
    from vrtspike.data.dataset import DatasetInfo, write_info

    steps, exposure, (height, width) = 64, 56, size
    photograph = data.astronaut()
    for number, (sequence, frames) in enumerate(sequences.items()):
        folder = root / split / sequence
        for kind in ("blurred", "sharp", "spike"):
            (folder / kind).mkdir(parents=True)
        charge = np.random.default_rng(number).uniform(0, threshold, size)
        for frame in range(frames):
            at = [
                (frame * steps + step) * pixels_a_frame // steps + 20 + 60 * number
                for step in range(steps + 1)
            ]
            views = np.stack([photograph[60 : 60 + height, x : x + width] for x in at])
            spikes = np.zeros((steps, *size), bool)
            for step, gray in enumerate(views[:steps] @ (0.299, 0.587, 0.114) / 255):
                charge += gray
                spikes[step] = charge >= threshold
                charge[spikes[step]] -= threshold
            blurred = views[:exposure].mean(axis=0).round().astype(np.uint8)
            Image.fromarray(blurred).save(folder / "blurred" / f"{frame:06d}.png")
            Image.fromarray(views[exposure // 2]).save(folder / "sharp" / f"{frame:06d}.png")
            write_dat(folder / "spike" / f"{frame:06d}.dat", spikes)
    info = DatasetInfo.model_validate(
        {
            "spike": {"height": height, "width": width, "rate_hz": 1000, "threshold": threshold},
            "frame": {"height": height, "width": width},
            "steps_per_frame": steps,
            "exposure": (0, exposure),
            "target_step": exposure // 2,
            "source": "a test: one photograph, moved",
        }
    )
    write_info(root / "dataset.yaml", info)
    return root
