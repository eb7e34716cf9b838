"""The naive reference and the model compute the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from tests.model import naive
from vrtspike.config.model import ModelSettings
from vrtspike.model import build_model
from vrtspike.model.temporal import TemporalAttention
from vrtspike.model.vrt import VRT
from vrtspike.model.warp import nearest4_warp

Way = Callable[[Tensor], Tensor]


@pytest.fixture
def vrt(tiny: ModelSettings) -> VRT:
    """Return a model whose every path counts: nothing is zero, blocks are shifted.

    Its flow is the same everywhere and points between pixels, for slopes jump where it hits one.
    """
    torch.manual_seed(0)
    changes = {"fusion": "none", "blocks": 4, "zero_init_flow": True}
    model = build_model(tiny.model_copy(update=changes)).double().eval()
    assert isinstance(model, VRT)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and not name.startswith("spynet"):
            nn.init.normal_(parameter, std=0.1)
        elif name.endswith("basic_module.8.bias"):
            nn.init.constant_(parameter, 0.03)
    return model


def moving(frames: int, height: int, width: int) -> Tensor:
    return torch.rand(1, frames, 3, height, width, dtype=torch.float64)


@pytest.mark.parametrize("size", [(3, 64, 72), (2, 64, 64)])
def test_restores_as_the_model_does(vrt: VRT, size: tuple[int, int, int]) -> None:
    blurred = moving(*size)
    results = []
    for restore in (vrt, lambda x: naive.restore(vrt, x)):
        vrt.zero_grad()
        restored = restore(blurred)
        (restored - blurred).square().sum().backward()
        norms = {k: p.grad.norm() for k, p in vrt.named_parameters() if p.grad is not None}
        results.append((restored.detach(), norms))
    (restored, norms), (expected, expected_norms) = results
    assert (expected - blurred).abs().max() > 0.01
    torch.testing.assert_close(restored, expected)
    torch.testing.assert_close(norms, expected_norms)


@pytest.mark.parametrize("instants", [3, 5])
def test_attends_along_time_as_the_model_does(instants: int) -> None:
    attention = TemporalAttention(8, 2)
    query, source = torch.rand(2, 3, 4, 5, 8), torch.rand(2, instants, 4, 5, 8)
    expected = naive.temporal_attention(attention, query, source)
    torch.testing.assert_close(attention(query, source), expected)


CLIP = (1, 3, 32, 32)


def images(x: Tensor) -> Tensor:
    return rearrange(x, "b t h w c -> b t c h w")


@pytest.fixture
def plain(tiny: ModelSettings) -> VRT:
    """Return a model in float32 whose offsets differ from the flow, if little."""
    torch.manual_seed(0)
    model = build_model(tiny.model_copy(update={"fusion": "none"})).eval()
    assert isinstance(model, VRT)
    nn.init.normal_(model.stages()[0].pa_deform.conv_offset[-1].weight, std=1e-3)
    return model


@pytest.fixture
def flows() -> Tensor:
    """Return flows of all pairs, backward and forward, that point between pixels: where they hit
    one, slopes jump, and rounding decides which counts."""
    generator = torch.Generator().manual_seed(0)
    shape = (2 * CLIP[0], CLIP[1] - 1, 2, *CLIP[2:])
    whole = torch.randint(-4, 4, shape, generator=generator)
    return whole + 0.3 + 0.4 * torch.rand(shape, generator=generator)


@pytest.fixture
def ways(plain: VRT, flows: Tensor) -> dict[str, tuple[Way, Way]]:
    """Return the fast and the plain way to compute each part of stage 1."""
    stage, (backward, forward) = plain.stages()[0], flows.chunk(2)

    def fast_warp(frames: Tensor) -> Tensor:
        neighbours = torch.cat((images(frames)[:, 1:], images(frames)[:, :-1]))
        return nearest4_warp(neighbours.flatten(0, 1), flows.flatten(0, 1))

    def plain_warp(frames: Tensor) -> Tensor:
        both = naive.each_pair(naive.nearest4_warp, images(frames), backward, forward)
        return torch.cat(both).flatten(0, 1)

    def plain_alignment(x: Tensor) -> Tensor:
        both = naive.aligned_neighbours(stage.pa_deform, images(x), backward, forward)
        return rearrange(torch.cat(both), "b t c h w -> b t h w c")

    return {
        "mutual attention": (
            stage.residual_group1,
            lambda x: naive.block_group(stage.residual_group1, x),
        ),
        "self attention": (
            stage.residual_group2,
            lambda x: naive.block_group(stage.residual_group2, x),
        ),
        "alignment": (lambda x: torch.cat(stage._align(x, (backward, forward))), plain_alignment),
        "flow": (
            lambda x: torch.cat(plain._flows(images(x))[0]),
            lambda x: torch.cat(naive.pair_flows(plain.spynet, images(x))[0]),
        ),
        "warp": (fast_warp, plain_warp),
    }


@pytest.mark.parametrize(
    "part", ["mutual attention", "self attention", "alignment", "flow", "warp"]
)
def test_each_fast_path_and_its_gradient_equal_the_reference(
    ways: dict[str, tuple[Way, Way]], part: str
) -> None:
    x = torch.rand(*CLIP, 3 if part in ("flow", "warp") else 8)
    results = []
    for way in ways[part]:
        leaf = x.clone().requires_grad_()
        out = way(leaf)
        if out.requires_grad:  # the nearest-4 warp hands no gradient on
            out.square().mean().backward()
        results.append((out.detach(), leaf.grad))
    (out, grad), (expected, expected_grad) = results
    assert (out - expected).abs().max() < 1e-4
    assert (grad is None) == (expected_grad is None) == (part == "warp")
    if grad is not None and expected_grad is not None:
        assert (grad - expected_grad).abs().max() < 1e-3 * expected_grad.abs().max()
