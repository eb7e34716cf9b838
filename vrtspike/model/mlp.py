"""The gated MLP of VRT's blocks, with the normalisation in front of it.

    mlp(x) = fc2(gelu(fc11(norm(x))) * fc12(norm(x)))        (Shazeer, GLU Variants, 2020)

On a CPU the tokens pass in chunks whose hidden features stay in the cache. Where recomputation is
asked for, only `x` is kept for the backward pass.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.model.recompute import recompute

CHUNK_TOKENS = 2048


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
        lean = not torch.is_grad_enabled() or (self.checkpoint and self.training)
        if lean and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            scale = () if norm is None else (norm.weight, norm.bias)
            layers = (self.fc11, self.fc12, self.fc2)
            weights = [p for layer in layers for p in (layer.weight, layer.bias)]
            out: Tensor = _in_chunks(x, None if norm is None else norm.eps, *weights, *scale)
            return out
        return recompute(partial(self._whole, norm=norm), x, wanted=lean)

    def _whole(self, x: Tensor, norm: nn.LayerNorm | None) -> Tensor:
        x = x if norm is None else norm(x)
        out: Tensor = self.fc2(F.gelu(self.fc11(x)) * self.fc12(x))
        return out


class _Chunks(torch.autograd.Function):
    """The same, some tokens at a time; the backward pass computes the hidden features again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float | None, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.eps = eps
        fc2, fc2_bias = weights[4:6]
        out = x.new_empty((*x.shape[:-1], len(fc2)))
        chunks = zip(_split(x), _split(out), strict=True)
        for tokens, place in chunks:
            hidden = _Hidden(tokens, eps, weights)
            torch.addmm(fc2_bias, hidden.gate.mul_(hidden.value), fc2.t(), out=place)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        fc11, _, fc12, _, fc2, _ = weights[:6]
        x_grad = torch.empty_like(x, memory_format=torch.contiguous_format)
        grads = [torch.zeros_like(weight) for weight in weights]
        chunks = zip(_split(x), _split(gradients[0]), _split(x_grad), strict=True)
        for tokens, out_grad, place in chunks:
            hidden = _Hidden(tokens, ctx.eps, weights)
            _add_linear(grads[4:6], out_grad, hidden.gate * hidden.value)
            product = out_grad @ fc2
            value = product * hidden.gate
            before = torch.ops.aten.gelu_backward(product.mul_(hidden.value), hidden.before)
            _add_linear(grads[0:2], before, hidden.normed)
            _add_linear(grads[2:4], value, hidden.normed)
            normed = (before @ fc11).addmm_(value, fc12)
            if ctx.eps is None:
                place.copy_(normed)
                continue
            found = torch.ops.aten.native_layer_norm_backward(
                normed, tokens, tokens.shape[1:], *hidden.moments, *weights[6:], [True] * 3
            )
            place.copy_(found[0])
            grads[6] += found[1]
            grads[7] += found[2]
        return x_grad, None, *grads


_in_chunks = torch.compiler.disable(_Chunks.apply)  # type: ignore[no-untyped-call]


class _Hidden:
    """What some tokens are inside the MLP."""

    def __init__(
        self, tokens: Tensor, eps: float | None, weights: tuple[Tensor, ...] | list[Tensor]
    ) -> None:
        self.normed = tokens
        self.moments: tuple[Tensor, ...] = ()
        if eps is not None:
            scale, shift = weights[6:]
            self.normed, *moments = torch.native_layer_norm(
                tokens, tokens.shape[1:], scale, shift, eps
            )
            self.moments = tuple(moments)
        self.before = F.linear(self.normed, *weights[0:2])
        self.value = F.linear(self.normed, *weights[2:4])
        self.gate = F.gelu(self.before)


def _split(x: Tensor) -> tuple[Tensor, ...]:
    """Return the tokens `(n, c)` in chunks."""
    return torch.split(x.reshape(-1, x.shape[-1]), CHUNK_TOKENS)


def _add_linear(grads: list[Tensor], out_grad: Tensor, x: Tensor) -> None:
    """Add the gradients of a linear layer's weight and bias."""
    grads[0].addmm_(out_grad.t(), x)
    grads[1].add_(out_grad.sum(0))
