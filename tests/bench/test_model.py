"""The benchmark of a model: which cases run, and what comes of them."""

from __future__ import annotations

import pytest
import torch

from vrtspike.bench.model import (
    Machine,
    Plan,
    Report,
    find_machine,
    measure_side_by_side,
    parse_size,
)
from vrtspike.bench.passes import Case, settings_of
from vrtspike.config.model import ModelSettings
from vrtspike.errors import ConfigError, ResourceError
from vrtspike.model.costs import MAP_BLOCKS, Clip, measure_costs

CPU = Machine("cpu", "a test's", threads=1)


def test_a_size_is_frames_height_and_width() -> None:
    assert parse_size("6x64x96", batch=2) == Clip(2, 6, 64, 96)
    for text in ("64x64", "6x64x0", "6 64 64"):
        with pytest.raises(ConfigError, match="FRAMESxHEIGHTxWIDTH"):
            parse_size(text, batch=1)
    with pytest.raises(ConfigError, match="2 frames at least"):
        parse_size("1x64x64", batch=1)


def test_every_combination_runs_beside_its_baseline() -> None:
    clips = (Clip(1, 2, 32, 32), Clip(1, 2, 64, 64))
    plan = Plan(clips, ("float32", "bfloat16"), (False, True), (False,), 1)
    pairs = plan.pairs(fused=True)
    assert len(pairs) == 8
    assert all([case.model for case in pair] == ["baseline", "fused"] for pair in pairs)
    assert all(len(pair) == 1 for pair in plan.pairs(fused=False))


def test_a_case_changes_only_what_it_states(tiny: ModelSettings) -> None:
    configured = tiny.model_copy(update={"checkpoint_attention": True, "checkpoint_mlp": False})
    clip = Clip(1, 2, 32, 32)
    assert settings_of(configured, Case("fused", clip, "float32", None, False)) == configured
    baseline = settings_of(configured, Case("baseline", clip, "float32", False, False))
    assert (baseline.fusion, baseline.checkpoint_attention) == ("none", False)


def test_the_peak_of_a_known_device() -> None:
    assert Machine("cuda", "NVIDIA H200", 1).peak_flops("bfloat16") == 790e12
    assert Machine("cuda", "NVIDIA H200", 1).peak_flops("float32") is None
    assert CPU.peak_flops("bfloat16") is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused() -> None:
    with pytest.raises(ResourceError, match="no GPU"):
        find_machine("cuda", None)
    assert find_machine(None, 3).threads == 3


@pytest.mark.slow
def test_fused_and_baseline_are_measured_in_turns(tiny: ModelSettings) -> None:
    plan = Plan((Clip(1, 2, 32, 32),), ("float32",), (False,), (False,), 1)
    baseline, fused = measure_side_by_side(tiny, *plan.pairs(fused=True), CPU, 1)
    assert baseline.measured is not None and fused.measured is not None
    assert baseline.over_baseline is None and fused.over_baseline is not None
    assert fused.over_baseline["step_s"] == pytest.approx(
        fused.measured.step_s / baseline.measured.step_s
    )
    assert 0 < fused.measured.forward_s < fused.measured.step_s
    assert fused.measured.step_flops > baseline.measured.step_flops


@pytest.mark.slow
def test_a_case_that_fails_says_why(tiny: ModelSettings) -> None:
    case = Case("baseline", Clip(1, 1, 32, 32), "float32", False, False)
    (result,) = measure_side_by_side(tiny, [case], CPU, 1)
    assert result.measured is None
    assert result.failure is not None and "neighbouring frames" in result.failure
    assert Report(CPU, [result]).failed


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("checkpoint", [False, True])
def test_memory_is_within_a_fifth_of_what_is_measured(
    checkpoint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a size whose activations outweigh the libraries' own buffers, in a heap without holes."""
    monkeypatch.setenv(MAP_BLOCKS, "1048576")
    settings = ModelSettings(
        channels=32,
        refine_channels=32,
        blocks=2,
        mutual_ratio=0.5,
        refine_blocks=1,
        heads=4,
        deformable_groups=4,
        checkpoint_attention=checkpoint,
        checkpoint_mlp=checkpoint,
    )
    clip = Clip(1, 4, 96, 96)
    cpu = torch.device("cpu")
    costs = measure_costs(settings, clip, device=cpu, precision="float32")
    case = Case("fused", clip, "float32", checkpoint, False)
    (result,) = measure_side_by_side(settings, [case], CPU, 1)
    assert result.measured is not None
    weights_and_gradients = 2 * 4 * costs.parameters
    expected = costs.activations + weights_and_gradients
    assert result.measured.step_bytes == pytest.approx(expected, rel=0.2)
