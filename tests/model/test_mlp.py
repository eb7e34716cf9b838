"""The gated MLP in chunks against the whole."""

from __future__ import annotations

import pytest
import torch

from vrtspike.model import mlp
from vrtspike.model.mlp import GatedMLP


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("chunk", [1, 5, 4096])
def test_chunks_give_the_values_and_gradients_of_the_whole(
    normed: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp, "CHUNK_TOKENS", chunk)
    torch.manual_seed(0)
    norm = torch.nn.LayerNorm(6).double() if normed else None
    if norm is not None:
        torch.nn.init.normal_(norm.weight)
    whole = GatedMLP(6, 10, 4).double()
    chunked = GatedMLP(6, 10, 4, checkpoint=True).double()
    chunked.load_state_dict(whole.state_dict())
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    results = []
    for layer in (whole, chunked):
        wanted = [x, *layer.parameters(), *(norm.parameters() if norm is not None else ())]
        out = layer(x, norm)
        results.append((out, *torch.autograd.grad(out.square().sum(), wanted)))
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)


def test_chunks_keep_nothing_but_their_input() -> None:
    layer, kept = GatedMLP(8, 16, checkpoint=True), []
    x = torch.randn(5, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x)
    features = [t for t in kept if not any(t is p for p in layer.parameters())]
    assert [t.shape for t in features] == [x.shape]


def test_half_precision_takes_the_layers_as_they_are() -> None:
    layer, x = GatedMLP(8, 16, checkpoint=True), torch.randn(5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), layer(x), atol=0.03, rtol=0.03)
