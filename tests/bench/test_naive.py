"""The naive reference and the model compute the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vrtspike.bench import naive
from vrtspike.bench.fast_paths import compare_fast_paths
from vrtspike.config.model import ModelSettings
from vrtspike.model import build_model
from vrtspike.model.costs import Clip
from vrtspike.model.temporal import TemporalAttention
from vrtspike.model.vrt import VRT


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


def test_fast_paths_are_compared_with_the_reference(tiny: ModelSettings) -> None:
    comparisons = compare_fast_paths(tiny, Clip(1, 3, 32, 32), torch.device("cpu"), 1)
    assert len({found.part for found in comparisons}) == 6
    for found in comparisons:
        assert found.difference < 1e-4, found
        assert found.gradient_difference < 1e-3, found
        assert found.speedup > 0
