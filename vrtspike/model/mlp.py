"""The gated MLP of VRT's blocks, and the normalisation before it.

    mlp(x) = fc2(gelu(fc11(norm(x))) * fc12(norm(x)))        (Shazeer, GLU Variants, 2020)

On a CPU the tokens are computed in chunks, so that their hidden features stay in the cache. With
`checkpoint`, and if there is much memory to save, only `x` is kept for the backward pass.
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
"""Number of hidden elements computed at once on a CPU (2 MiB in float32)."""


class GatedMLP(nn.Module):
    """Two parallel linear layers, the first of which gates the second, and an output layer."""

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
        wanted = self.checkpoint and self.training
        plain = x.device.type != "cpu" or torch.is_autocast_enabled("cpu")
        if plain or torch.compiler.is_compiling():
            return recompute(partial(self._whole, norm=norm), x, wanted=wanted)
        hidden = x.numel() // x.shape[-1] * len(self.fc11.weight)
        keep = torch.is_grad_enabled() and not (wanted and not is_small(hidden))
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
    """The gated MLP, a chunk of tokens at a time; hidden features are kept or recomputed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float | None, keep: bool, *weights: Tensor) -> Tensor:
        fc2, fc2_bias = weights[4:6]
        out = x.new_empty((*x.shape[:-1], len(fc2)))
        kept: list[Tensor] = []
        for tokens, chunk in zip(_split(x, weights), _split(out, weights), strict=True):
            hidden = _hidden(tokens, eps, weights)
            if keep:
                kept += (tokens, *hidden)
                product = hidden.gate * hidden.value
            else:
                product = hidden.gate.mul_(hidden.value)
            torch.addmm(fc2_bias, product, fc2.t(), out=chunk)
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
        grad_chunks = zip(_split(gradients[0], weights), _split(x_grad, weights), strict=True)
        for (tokens, hidden), (out_grad, grad_chunk) in zip(chunks, grad_chunks, strict=True):
            _backward(tokens, hidden, out_grad, grad_chunk, weights, grads)
        return x_grad, None, None, *grads


def _backward(
    tokens: Tensor,
    hidden: _Hidden,
    out_grad: Tensor,
    x_grad: Tensor,
    weights: Sequence[Tensor],
    grads: list[Tensor | None],
) -> None:
    """Write the gradient of a chunk of tokens to `x_grad`, and add to the weights' gradients."""
    fc11, _, fc12, _, fc2, _, *scale = weights
    _add_linear(grads, 4, out_grad, hidden.gate * hidden.value)
    value = out_grad @ fc2
    gate = value * hidden.value
    value *= hidden.gate
    before = torch.ops.aten.gelu_backward(gate, hidden.before)
    _add_linear(grads, 0, before, hidden.normed)
    _add_linear(grads, 2, value, hidden.normed)
    if not scale:
        torch.addmm(before @ fc11, value, fc12, out=x_grad)
        return
    normed = torch.addmm(before @ fc11, value, fc12)
    norm_grads = torch.ops.aten.native_layer_norm_backward(
        normed, tokens, tokens.shape[1:], hidden.mean, hidden.deviation, *scale, [True] * 3
    )
    x_grad.copy_(norm_grads[0])
    for i, grad in enumerate(norm_grads[1:], start=6):
        _add(grads, i, grad)


_in_chunks = torch.compiler.disable(_Chunks.apply)  # type: ignore[no-untyped-call]


class _Hidden(NamedTuple):
    """Hidden features of a chunk of tokens `(n, c)` that the backward pass needs."""

    normed: Tensor
    mean: Tensor
    deviation: Tensor
    """The inverse of the standard deviation."""
    before: Tensor
    gate: Tensor
    value: Tensor


def _hidden(tokens: Tensor, eps: float | None, weights: Sequence[Tensor]) -> _Hidden:
    """Compute the hidden features; if `eps` is None there is no normalisation."""
    normed, mean, deviation = tokens, tokens[:0], tokens[:0]
    if eps is not None:
        scale, shift = weights[6:]
        normed, mean, deviation = torch.native_layer_norm(
            tokens, tokens.shape[1:], scale, shift, eps
        )
    before = F.linear(normed, *weights[0:2])
    return _Hidden(normed, mean, deviation, before, F.gelu(before), F.linear(normed, *weights[2:4]))


def _split(x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Split the tokens `(n, c)` into chunks whose hidden features fit the cache."""
    return torch.split(x.reshape(-1, x.shape[-1]), max(1, CHUNK_ELEMENTS // len(weights[0])))


def _add_linear(grads: list[Tensor | None], first: int, out_grad: Tensor, x: Tensor) -> None:
    """Add the gradients of a linear layer's weight and bias to `grads`, at `first` and after."""
    weight = grads[first]
    if weight is None:
        grads[first] = out_grad.t() @ x
    else:
        weight.addmm_(out_grad.t(), x)
    _add(grads, first + 1, out_grad.sum(0))


def _add(grads: list[Tensor | None], i: int, grad: Tensor) -> None:
    """Add to gradient i, which may still be None."""
    total = grads[i]
    if total is None:
        grads[i] = grad
    else:
        total.add_(grad)
