"""Costs are counted as the model runs, and grow with the clip as the model's do."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vrtspike.config.model import GuessSettings, ModelSettings
from vrtspike.model import build_model, costs
from vrtspike.model.costs import Clip, Costs, Precision, measure_costs

CLIP = Clip(2, 2, 32, 64)


@pytest.fixture
def tiny(tiny: ModelSettings) -> ModelSettings:
    """Return a model of few windows, for each is counted."""
    return tiny.model_copy(
        update={"window": (2, 8, 8), "refine_groups": (1, 0), "refine_blocks": 1}
    )


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the buffers of a fixed size, which would outweigh a tiny model."""
    monkeypatch.setattr("vrtspike.model.window_attention.BLOCK_SCORES", 2**16)
    monkeypatch.setattr("vrtspike.model.mlp.CHUNK_ELEMENTS", 2**12)


def measure(
    settings: ModelSettings,
    clip: Clip = CLIP,
    *,
    precision: Precision = "float32",
    backward: bool = True,
) -> Costs:
    cpu = torch.device("cpu")
    return measure_costs(settings, clip, device=cpu, precision=precision, backward=backward)


@pytest.mark.slow
def test_operations_of_the_published_model() -> None:
    """As counted on the published implementation: 5.02 TFLOP for 6 frames of 192x192."""
    settings = ModelSettings(fusion="none")
    found = measure(settings, Clip(1, 6, 192, 192), backward=False)
    assert found.flops == pytest.approx(5.02e12, rel=0.005)
    assert found.parameters == 18_320_007


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["temporal", "concat", "early", "none"])
def test_parts_are_the_whole_model(tiny: ModelSettings, fusion: str) -> None:
    settings = tiny.model_copy(update={"fusion": fusion})
    found = measure(settings)
    names = [part.name for part in found.parts]
    assert len(set(names)) == len(names)
    assert found.parameters == sum(p.numel() for p in build_model(settings).parameters())
    assert any(part.spike for part in found.parts) == (fusion != "none")
    assert not any(part.spike for part in found.parts if "stage" in part.name)
    assert 0 < sum(part.kept for part in found.parts) <= found.activations


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("fusion", ["temporal", "none"])
def test_a_guess_and_patches_are_counted(tiny: ModelSettings, fusion: str, patch: int) -> None:
    guess = GuessSettings(channels=8, blocks=1)
    settings = tiny.model_copy(update={"fusion": fusion, "guess": guess, "patch": patch})
    clip = Clip(1, 2, 64, 64)
    found = measure(settings, clip, backward=False)
    parts = {part.name: part for part in found.parts}
    assert len(parts) == len(found.parts)
    assert found.parameters == sum(p.numel() for p in build_model(settings).parameters())
    vrt = "trunk." if fusion == "none" else "trunk.vrt."
    assert {"guess", "entry", f"{vrt}stage1", f"{vrt}spynet", f"{vrt}conv_last"} <= parts.keys()
    assert {part.name for part in found.parts if not part.flops} == {f"{vrt}norm"}
    assert parts["guess"].shape == (1, 2, 64, 64, 3)
    tokens = 64 // patch
    assert parts[f"{vrt}stage1"].shape == (1, 2, tokens, tokens, 8)
    # Two frames, half their sides, multiply-add: four convolutions of the guess.
    inputs = 4 * (3 + (0 if fusion == "none" else settings.spike.channels))
    widths = inputs * 8 + 2 * 8 * 8 + 8 * 12
    assert parts["guess"].flops == 2 * 9 * widths * 2 * 32 * 32
    shares = [found.spike_share(name) for name in ("parameters", "flops")]
    assert all(0 < share < 0.9 for share in shares) if fusion != "none" else shares == [0, 0]
    assert not any(part.spike for part in found.parts if part.name in ("guess", "entry"))


def test_a_guess_alone_is_counted_at_its_own_size(tiny: ModelSettings) -> None:
    guess = GuessSettings(channels=8, blocks=1)
    settings = tiny.model_copy(update={"guess": guess, "trunk": False})
    found = measure(settings, Clip(1, 3, 66, 33), backward=False)
    widths = 4 * (3 + settings.spike.channels) * 8 + 2 * 8 * 8 + 8 * 12
    assert found.flops == 3 * 9 * widths * 2 * 33 * 17
    assert [part.name for part in found.parts] == ["guess"] and found.spike_share("flops") == 0


def test_larger_patches_cost_less(tiny: ModelSettings) -> None:
    clip, found = Clip(1, 2, 64, 64), []
    for patch in (1, 2, 4):
        settings = tiny.model_copy(update={"fusion": "none", "patch": patch})
        found.append(measure(settings, clip, backward=False))
    assert found[0].flops > 2 * found[1].flops > 4 * found[2].flops
    assert found[0].activations > found[1].activations > found[2].activations


@pytest.mark.slow
@pytest.mark.usefixtures("small_buffers")
def test_costs_of_a_guided_model_grow_as_it_does(
    tiny: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    guess = GuessSettings(channels=8, blocks=1)
    settings = tiny.model_copy(update={"guess": guess, "patch": 2})
    clip = Clip(2, 2, 64, 128)
    grown = measure(settings, clip)
    monkeypatch.setattr(costs, "TILE", 1000)
    whole = measure(settings, clip)
    assert [part.shape for part in grown.parts] == [part.shape for part in whole.parts]
    assert grown.flops == pytest.approx(whole.flops, rel=0.02)
    assert grown.activations == pytest.approx(whole.activations, rel=0.1)


@pytest.mark.slow
def test_a_part_is_counted_without_the_parts_that_it_calls(tiny: ModelSettings) -> None:
    """With concatenation, the fusion is called inside a stage."""
    concat, plain = (
        {part.name.removeprefix("vrt."): part for part in measure(settings).parts}
        for settings in (tiny.model_copy(update={"fusion": f}) for f in ("concat", "none"))
    )
    assert concat["stage1"].flops == plain["stage1"].flops
    assert concat["stage1"].parameters == plain["stage1"].parameters
    assert concat["stage1"].kept == pytest.approx(plain["stage1"].kept, rel=0.05)
    assert concat["fusion.0"].flops == 2 * prod(concat["fusion.0"].shape) * 2 * tiny.channels


@pytest.mark.slow
@pytest.mark.usefixtures("small_buffers")
def test_costs_of_a_clip_are_those_of_running_it(
    tiny: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = measure(tiny)
    monkeypatch.setattr(costs, "TILE", 1000)
    whole = measure(tiny)
    assert [part.shape for part in grown.parts] == [part.shape for part in whole.parts]
    assert grown.flops == pytest.approx(whole.flops, rel=0.02)
    assert grown.activations == pytest.approx(whole.activations, rel=0.1)
    assert grown.spike_share("kept") == pytest.approx(whole.spike_share("kept"), rel=0.05)


def test_shapes_are_those_that_the_parts_hand_on(tiny: ModelSettings) -> None:
    shapes = {part.name: part.shape for part in measure(tiny).parts}
    assert shapes["vrt.stage1"] == shapes["fusion.0"] == (2, 2, 32, 64, 8)
    assert shapes["vrt.stage4"] == shapes["temporal.3"] == (2, 2, 4, 8, 8)
    assert shapes["vrt.spynet"] == (4, 2, 32, 64)  # 1 pair, both ways, 2 clips
    assert shapes["vrt.conv_last"] == (2, 2, 32, 64, 3)


@pytest.mark.slow
@pytest.mark.usefixtures("small_buffers")
def test_recomputation_and_half_precision_keep_less(tiny: ModelSettings) -> None:
    whole = measure(tiny)
    changes = {"checkpoint_attention": True, "checkpoint_mlp": True}
    recomputed = measure(tiny.model_copy(update=changes))
    assert recomputed.activations < 0.7 * whole.activations
    assert recomputed.flops == whole.flops
    assert measure(tiny, precision="bfloat16").activations < 0.8 * whole.activations
    assert measure(tiny, backward=False).activations < 0.3 * whole.activations


class Keep(torch.autograd.Function):
    """Keep ten copies of the input for the backward pass, behind autograd's back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.repeat(10, 1))
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def test_sees_what_a_function_keeps_until_it_is_dropped() -> None:
    model, x = nn.Linear(4, 4, bias=False), torch.rand(100, 4)
    size = x.numel() * x.element_size()
    with costs._CostCounter(model) as counter:
        hidden = model(x)
        out = Keep.apply(hidden)
        assert counter.activations.live == 12 * size
        del hidden, out
        assert counter.activations.live == 0
    assert counter.activations.peak == 12 * size
    assert counter.flops == 2 * 100 * 4 * 4


def test_what_is_made_from_weights_alone_does_not_grow() -> None:
    model, x = nn.Linear(4, 4, bias=False), torch.rand(100, 4)
    with costs._CostCounter(model) as counter:
        copy = torch.cat((model.weight, model.weight)) * 2
        x @ copy.T
    assert counter.derived.peak == 4 * 2 * copy.numel()
    assert counter.activations.peak == 100 * 8 * 4


def test_a_smaller_clip_than_the_tile_is_run_as_it_is(tiny: ModelSettings) -> None:
    found = measure(tiny, replace(CLIP, height=16, width=24))
    assert found.parts[-1].shape == (2, 2, 16, 24, 3)
