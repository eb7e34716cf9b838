"""Every shipped configuration loads, and its model can be built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vrtspike.config import load_config
from vrtspike.model import build_model

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_it_loads_and_its_model_and_the_baseline_are_built(path: Path) -> None:
    with torch.device("meta"):
        fused = build_model(load_config(path).model)
        baseline = build_model(load_config(path, ["model.fusion=none"]).model)
    names = {name for name, _ in baseline.named_parameters()}
    assert names and len(names) <= len(list(fused.parameters()))


def test_the_full_size_is_the_default() -> None:
    assert load_config(CONFIGS / "model/spike_vrt_deblur.yaml") == load_config(None)


def test_the_demo_trains_on_processors_with_one_left_for_data() -> None:
    for name in ("demo.yaml", "debug.yaml"):
        train = load_config(CONFIGS / name).train
        assert not train.gpu and train.workers == 2
        assert train.workers * train.cpus_per_worker <= 1
