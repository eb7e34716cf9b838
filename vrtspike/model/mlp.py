"""The gated MLP of VRT's blocks, with the normalisation in front of it.

    mlp(x) = fc2(gelu(fc11(norm(x))) * fc12(norm(x)))        (Shazeer, GLU Variants, 2020)

On a CPU the tokens pass in chunks whose hidden features stay in the cache. Where recomputation is
asked for, and saves memory worth the time, only `x` is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.model.recompute import is_small, recompute

CHUNK_ELEMENTS = 2**19
"""Hidden features of this many elements (2 MiB in float32) are computed at once on a CPU."""


class GatedMLP(nn.Module):
    """Two linear layers side by side, one gating the other, and a third behind them."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        out_channels: int | None = None,
        *,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.fc11 = nn.Linear(channels, hidden)
        self.fc12 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, out_channels or channels)

    def forward(
        self, x: Float[Tensor, "*batch c"], norm: nn.LayerNorm | None = None
    ) -> Float[Tensor, "*batch o"]:
        """Apply `norm`, if given, and the gated layers to the last axis."""
        lean = self.checkpoint and self.training
        plain = x.device.type != "cpu" or torch.is_autocast_enabled("cpu")
        if plain or torch.compiler.is_compiling():
            return recompute(partial(self._whole, norm=norm), x, wanted=lean)
        hidden = x.numel() // x.shape[-1] * len(self.fc11.weight)
        keep = torch.is_grad_enabled() and not (lean and not is_small(hidden))
        scale = () if norm is None else (norm.weight, norm.bias)
        layers = (self.fc11, self.fc12, self.fc2)
        weights = [p for layer in layers for p in (layer.weight, layer.bias)]
        out: Tensor = _in_chunks(x, None if norm is None else norm.eps, keep, *weights, *scale)
        return out

    def _whole(self, x: Tensor, norm: nn.LayerNorm | None) -> Tensor:
        x = x if norm is None else norm(x)
        out: Tensor = self.fc2(F.gelu(self.fc11(x)) * self.fc12(x))
        return out


class _Chunks(torch.autograd.Function):
    """The same, some tokens at a time; hidden features are kept, or computed again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float | None, keep: bool, *weights: Tensor) -> Tensor:
        fc2, fc2_bias = weights[4:6]
        out = x.new_empty((*x.shape[:-1], len(fc2)))
        kept: list[Tensor] = []
        for tokens, place in zip(_split(x, weights), _split(out, weights), strict=True):
            hidden = _hidden(tokens, eps, weights)
            if keep:
                kept += (tokens, *hidden)
                product = hidden.gate * hidden.value
            else:
                product = hidden.gate.mul_(hidden.value)
            torch.addmm(fc2_bias, product, fc2.t(), out=place)
        ctx.save_for_backward(*weights, *(kept if keep else [x]))
        ctx.eps, ctx.keep, ctx.weights, ctx.shape = eps, keep, len(weights), x.shape
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weights, saved = ctx.saved_tensors[: ctx.weights], ctx.saved_tensors[ctx.weights :]
        chunks: Iterable[tuple[Tensor, _Hidden]]
        if ctx.keep:
            chunks = [(saved[i], _Hidden(*saved[i + 1 : i + 7])) for i in range(0, len(saved), 7)]
        else:
            chunks = ((x, _hidden(x, ctx.eps, weights)) for x in _split(saved[0], weights))
        x_grad = gradients[0].new_empty(ctx.shape)
        grads: list[Tensor | None] = [None] * len(weights)
        places = zip(_split(gradients[0], weights), _split(x_grad, weights), strict=True)
        for (tokens, hidden), (out_grad, place) in zip(chunks, places, strict=True):
            _backward(tokens, hidden, out_grad, place, weights, grads)
        return x_grad, None, None, *grads


def _backward(
    tokens: Tensor,
    hidden: _Hidden,
    out_grad: Tensor,
    place: Tensor,
    weights: Sequence[Tensor],
    grads: list[Tensor | None],
) -> None:
    """Write the gradient of some tokens to `place`, and add to those of the weights."""
    fc11, _, fc12, _, fc2, _, *scale = weights
    _add_linear(grads, 4, out_grad, hidden.gate * hidden.value)
    value = out_grad @ fc2
    gate = value * hidden.value
    value *= hidden.gate
    before = torch.ops.aten.gelu_backward(gate, hidden.before)
    _add_linear(grads, 0, before, hidden.normed)
    _add_linear(grads, 2, value, hidden.normed)
    if not scale:
        torch.addmm(before @ fc11, value, fc12, out=place)
        return
    normed = torch.addmm(before @ fc11, value, fc12)
    found = torch.ops.aten.native_layer_norm_backward(
        normed, tokens, tokens.shape[1:], hidden.mean, hidden.deviation, *scale, [True] * 3
    )
    place.copy_(found[0])
    for i, grad in enumerate(found[1:], start=6):
        _add(grads, i, grad)


_in_chunks = torch.compiler.disable(_Chunks.apply)  # type: ignore[no-untyped-call]


class _Hidden(NamedTuple):
    """What some tokens `(n, c)` are inside the MLP."""

    normed: Tensor
    mean: Tensor
    deviation: Tensor
    """The inverse of the standard deviation."""
    before: Tensor
    gate: Tensor
    value: Tensor


def _hidden(tokens: Tensor, eps: float | None, weights: Sequence[Tensor]) -> _Hidden:
    """Compute the hidden features; without `eps` there is no normalisation, nor its moments."""
    normed, mean, deviation = tokens, tokens[:0], tokens[:0]
    if eps is not None:
        scale, shift = weights[6:]
        normed, mean, deviation = torch.native_layer_norm(
            tokens, tokens.shape[1:], scale, shift, eps
        )
    before = F.linear(normed, *weights[0:2])
    return _Hidden(normed, mean, deviation, before, F.gelu(before), F.linear(normed, *weights[2:4]))


def _split(x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the tokens `(n, c)` in chunks of so many that their hidden features fit the cache."""
    return torch.split(x.reshape(-1, x.shape[-1]), max(1, CHUNK_ELEMENTS // len(weights[0])))


def _add_linear(grads: list[Tensor | None], first: int, out_grad: Tensor, x: Tensor) -> None:
    """Add the gradients of a linear layer's weight and bias."""
    weight = grads[first]
    if weight is None:
        grads[first] = out_grad.t() @ x
    else:
        weight.addmm_(out_grad.t(), x)
    _add(grads, first + 1, out_grad.sum(0))


def _add(grads: list[Tensor | None], i: int, grad: Tensor) -> None:
    """Add to one of the gradients."""
    total = grads[i]
    if total is None:
        grads[i] = grad
    else:
        total.add_(grad)
