"""VRT against the published reference values, and properties that hold at any size."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vrtspike.config.model import ModelSettings
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.model import build_model
from vrtspike.model.vrt import DERIVED_BUFFERS, VRT


@pytest.fixture(scope="module")
def golden_model(shared: Path, make_golden_vrt: Callable[[], VRT]) -> VRT:
    content = torch.load(shared / "golden/vrt_tiny_params.pt", weights_only=True)
    model = make_golden_vrt()
    model.load_state_dict(content["params"], strict=True)
    return model


@pytest.mark.parametrize("name", ["vrt_tiny_6x64x64", "vrt_tiny_5x72x88"])
def test_equals_the_published_implementation(name: str, golden_model: VRT, shared: Path) -> None:
    golden = torch.load(shared / f"golden/{name}.pt", weights_only=True)
    stages: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, key=key: stages.update({key: out}))
        for key, module in golden_model.named_children()
        if key in golden["stages"]
    ]
    flows = golden_model._flows(golden["input"])
    for (backward, forward), b, f in zip(
        flows, golden["flows_backward"], golden["flows_forward"], strict=True
    ):
        torch.testing.assert_close(backward, b, atol=1e-4, rtol=0)
        torch.testing.assert_close(forward, f, atol=1e-4, rtol=0)
    with torch.no_grad():
        output = golden_model(golden["input"])
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(output, golden["output"], atol=1e-4, rtol=0)
    for key, expected in golden["stages"].items():
        got = stages[key] if key == "norm" else stages[key].permute(0, 4, 1, 2, 3)
        torch.testing.assert_close(
            got, expected, atol=1e-4, rtol=0, msg=lambda m, k=key: f"{k}: {m}"
        )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_gradients_equal_the_published_implementation(golden_model: VRT, shared: Path) -> None:
    """In float64, where rounding is no excuse: float32 alone is 2e-3 off in the flow network."""
    golden = torch.load(shared / "golden/vrt_tiny_6x64x64.pt", weights_only=True)
    model = copy.deepcopy(golden_model).double()
    output = model(golden["input"].double())
    (output * golden["output_weights"]).mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.norm().item() == pytest.approx(golden["grad_norms"][key], rel=1e-3), (
            key
        )


def test_has_the_published_names_shapes_and_count(shared: Path) -> None:
    published = json.loads((shared / "golden/vrt_deblur_state_dict.json").read_text())
    with torch.device("meta"):
        model = build_model(ModelSettings(fusion="none"))
    expected = {k: tuple(s) for k, s, _ in published if not k.endswith(DERIVED_BUFFERS)}
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == expected
    assert sum(p.numel() for p in model.parameters()) == 18_320_007


def test_fused_default_has_the_counted_parameters_and_its_slopes() -> None:
    with torch.device("meta"):
        model = build_model(ModelSettings())
    slopes = 8 * 4  # 4 scales, self- and cross-attention, one for each of 4 heads
    assert sum(p.numel() for p in model.parameters()) == 23_731_719 + slopes


@pytest.mark.parametrize("size", [(32, 40), (30, 37), (8, 8), (17, 64)])
@pytest.mark.parametrize("fusion", ["none", "temporal"])
def test_takes_any_size(size: tuple[int, int], fusion: str, tiny: ModelSettings) -> None:
    model = build_model(tiny.model_copy(update={"fusion": fusion})).eval()
    voxels = torch.rand(1, 2, 4, *size) if fusion == "temporal" else None
    out = model(torch.rand(1, 2, 3, *size), voxels)
    assert out.shape == (1, 2, 3, *size) and out.isfinite().all()


def test_one_frame_is_a_clear_error(tiny: ModelSettings) -> None:
    model = build_model(tiny.model_copy(update={"fusion": "none"}))
    with pytest.raises(DataFormatError, match="at least 2"):
        model(torch.rand(1, 1, 3, 32, 32))


def test_batched_equals_single(tiny: ModelSettings, clip: tuple[Tensor, Tensor]) -> None:
    model = build_model(tiny).eval()
    whole = model(*clip)
    for i in range(2):
        single = model(*(x[i : i + 1] for x in clip))
        torch.testing.assert_close(whole[i : i + 1], single, atol=1e-5, rtol=1e-4)


def test_zero_output_starts_as_the_identity(
    tiny: ModelSettings, clip: tuple[Tensor, Tensor]
) -> None:
    model = build_model(tiny.model_copy(update={"zero_init_output": True}))
    torch.testing.assert_close(model(*clip), clip[0])


def test_zero_flow_is_no_motion(tiny: ModelSettings, clip: tuple[Tensor, Tensor]) -> None:
    model = build_model(tiny.model_copy(update={"zero_init_flow": True, "fusion": "none"}))
    for backward, forward in model._flows(clip[0]):
        assert not backward.any() and not forward.any()


def test_recomputing_changes_neither_values_nor_gradients(
    tiny: ModelSettings, clip: tuple[Tensor, Tensor]
) -> None:
    plain = build_model(tiny)
    update = {"checkpoint_attention": True, "checkpoint_mlp": True}
    recomputed = build_model(tiny.model_copy(update=update))
    recomputed.load_state_dict(plain.state_dict())
    for model in (plain, recomputed):
        model(*clip).square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), recomputed.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=lambda m, n=name: f"{n}: {m}")


def test_stochastic_depth_drops_in_training_only(
    tiny: ModelSettings, clip: tuple[Tensor, Tensor]
) -> None:
    model = build_model(tiny.model_copy(update={"drop_path": 0.9, "fusion": "none"}))
    assert not torch.equal(model(clip[0]), model(clip[0]))
    model.eval()
    assert torch.equal(model(clip[0]), model(clip[0]))


def test_heads_that_do_not_divide_are_refused(tiny: ModelSettings) -> None:
    with pytest.raises(ConfigError, match=r"model\.heads"):
        build_model(tiny.model_copy(update={"heads": 3}))
