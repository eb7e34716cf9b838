"""The gated MLP in chunks against the whole."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vrtspike.model import mlp
from vrtspike.model.mlp import GatedMLP
from vrtspike.model.recompute import as_if_larger


@pytest.fixture
def all_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing kept where recomputation is asked for."""
    monkeypatch.setattr("vrtspike.model.recompute.KEPT_ELEMENTS", 0)


@pytest.mark.usefixtures("all_is_large")
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("chunk", [1, 50, 4096])
def test_chunks_give_the_values_and_gradients_of_the_formula(
    normed: bool, chunk: int, checkpoint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp, "CHUNK_ELEMENTS", chunk)
    torch.manual_seed(0)
    norm = torch.nn.LayerNorm(6).double() if normed else None
    if norm is not None:
        torch.nn.init.normal_(norm.weight)
    layer = GatedMLP(6, 10, 4, checkpoint=checkpoint).double()
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    wanted = [x, *layer.parameters(), *(norm.parameters() if norm is not None else ())]

    def formula() -> torch.Tensor:
        inner = x if norm is None else norm(x)
        return layer.fc2(F.gelu(layer.fc11(inner)) * layer.fc12(inner))

    results = []
    for out in (formula(), layer(x, norm)):
        results.append((out, *torch.autograd.grad(out.square().sum(), wanted)))
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)


def _kept_features(layer: GatedMLP, x: torch.Tensor) -> list[torch.Size]:
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x)
    return [t.shape for t in kept if not any(t is p for p in layer.parameters())]


@pytest.mark.usefixtures("all_is_large")
def test_chunks_keep_nothing_but_their_input() -> None:
    x = torch.randn(5, 8, requires_grad=True)
    assert _kept_features(GatedMLP(8, 16, checkpoint=True), x) == [x.shape]


def test_few_features_are_kept_though_recomputation_is_asked_for() -> None:
    layer, x = GatedMLP(8, 16, checkpoint=True), torch.randn(5, 8, requires_grad=True)
    assert torch.Size((5, 16)) in _kept_features(layer, x)
    with as_if_larger(2.0**20):
        assert _kept_features(layer, x) == [x.shape]


def test_half_precision_takes_the_layers_as_they_are() -> None:
    layer, x = GatedMLP(8, 16, checkpoint=True), torch.randn(5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), layer(x), atol=0.03, rtol=0.03)
