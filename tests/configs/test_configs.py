"""Every shipped configuration loads, and its model can be built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vrtspike.config.config import Config
from vrtspike.config.loader import load_config
from vrtspike.config.model import ModelSettings
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


PRESETS = ("deblur_t5", "deblur_t6", "high_quality", "low_memory", "fast", "tiny")


def preset(name: str) -> Config:
    return load_config(CONFIGS / f"presets/{name}.yaml")


def test_every_preset_is_tested_and_keeps_its_shards_and_run_apart() -> None:
    assert {path.stem for path in (CONFIGS / "presets").iterdir()} == set(PRESETS)
    for name in PRESETS:
        config = preset(name)
        assert config.run.name == name
        assert config.data.shards == Path(f"data/{name}/shards")


@pytest.mark.parametrize(
    ("name", "frames", "crop", "clips_at_once"),
    [
        ("deblur_t5", 5, 192, 1),
        ("deblur_t6", 6, 192, 1),
        ("high_quality", 7, 384, 1),
        ("low_memory", 3, 128, 1),
        ("fast", 6, 192, 2),
        ("tiny", 3, 32, 1),
    ],
)
def test_presets_train_on_clips_of_their_size_in_one_process(
    name: str, frames: int, crop: int, clips_at_once: int
) -> None:
    config = preset(name)
    assert (config.data.frames, config.data.crop) == (frames, crop)
    assert config.train.workers == 1 and config.train.gpu == (name != "tiny")
    assert config.train.batch // config.train.accumulation == clips_at_once


def test_presets_of_the_published_size_differ_only_in_memory() -> None:
    for name in ("deblur_t5", "deblur_t6"):
        assert preset(name).model == ModelSettings()
    assert preset("high_quality").model == ModelSettings(checkpoint_mlp=False)
    low = preset("low_memory")
    assert low.train.accumulation == 4
    assert low.model.checkpoint_attention and low.model.checkpoint_mlp
    assert (low.model.spike.chunk_size, low.model.spike.max_batch_tokens) == (32, 24_576)
    kept = low.model.spike.model_copy(update={"chunk_size": None, "max_batch_tokens": None})
    changes = {"checkpoint_attention": False, "spike": kept}
    assert low.model.model_copy(update=changes) == ModelSettings()


def test_high_quality_computes_nothing_twice() -> None:
    model = preset("high_quality").model
    assert not model.checkpoint_attention and not model.checkpoint_mlp
    assert model.spike.chunk_size is None and model.spike.max_batch_tokens is None


def test_fast_is_under_half_the_size() -> None:
    model = preset("fast").model
    assert (model.channels, model.heads, model.mlp_ratio) == (64, 2, 1.0)
    with torch.device("meta"):
        fast, full = (
            sum(p.numel() for p in build_model(settings).parameters())
            for settings in (model, ModelSettings())
        )
    assert fast < full / 2


def test_tiny_computes_gradients_of_its_own_clips() -> None:
    config = preset("tiny")
    torch.manual_seed(0)
    model = build_model(config.model)
    frames, crop = config.data.frames, config.data.crop
    blurred = torch.rand(1, frames, 3, crop, crop)
    voxels = torch.rand(1, frames, config.model.spike.bins, crop, crop)
    assert sum(p.numel() for p in model.parameters()) < 200_000
    restored = model(blurred, voxels)
    assert restored.shape == blurred.shape
    restored.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
