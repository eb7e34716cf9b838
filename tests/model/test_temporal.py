"""Attention along time."""

from __future__ import annotations

from math import exp, sqrt

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vrtspike.model.temporal import TemporalAttention, resample_time


def naive(attention: TemporalAttention, query: Tensor, source: Tensor) -> Tensor:
    """Compute attention along time for each pixel, head and pair of instants by itself."""
    batch, instants, height, width, channels = query.shape
    keys, size = source.shape[1], channels // attention.heads
    q = attention.q(query)
    k, v = attention.kv(source).chunk(2, dim=-1)
    out = torch.zeros_like(q)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                for m in range(attention.heads):
                    part = slice(m * size, (m + 1) * size)
                    for t in range(instants):
                        weights = []
                        for s in range(keys):
                            dot = float(q[b, t, y, x, part] @ k[b, s, y, x, part]) / sqrt(size)
                            apart = abs((t + 0.5) - (s + 0.5) * instants / keys)
                            weights.append(exp(dot - float(attention.slopes[m]) * apart))
                        for s in range(keys):
                            share = weights[s] / sum(weights)
                            out[b, t, y, x, part] += share * v[b, s, y, x, part]
    return attention.proj(out)


@pytest.mark.parametrize(("instants", "keys"), [(3, 3), (2, 5), (4, 1)])
def test_attention_equals_the_formula(instants: int, keys: int) -> None:
    torch.manual_seed(0)
    attention = TemporalAttention(8, 2).double()
    query = torch.randn(2, instants, 3, 2, 8, dtype=torch.float64)
    source = torch.randn(2, keys, 3, 2, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(attention(query, source), naive(attention, query, source))


def test_attention_equals_torch_without_slopes() -> None:
    ours = TemporalAttention(8, 2, biased=False)
    reference = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat((ours.q.weight, ours.kv.weight)))
        reference.in_proj_bias.copy_(torch.cat((ours.q.bias, ours.kv.bias)))
    reference.out_proj.load_state_dict(ours.proj.state_dict())
    query, source = torch.rand(2, 3, 4, 5, 8), torch.rand(2, 6, 4, 5, 8)
    flat = [x.permute(0, 2, 3, 1, 4).flatten(0, 2) for x in (query, source)]
    expected = reference(flat[0], flat[1], flat[1])[0].view(2, 4, 5, 3, 8).permute(0, 3, 1, 2, 4)
    torch.testing.assert_close(ours(query, source), expected)


def test_gradients_equal_differences() -> None:
    attention = TemporalAttention(4, 2).double()
    query = torch.randn(1, 2, 2, 1, 4, dtype=torch.float64, requires_grad=True)
    source = torch.randn(1, 3, 2, 1, 4, dtype=torch.float64, requires_grad=True)
    parameters = tuple(attention.parameters())

    def run(query: Tensor, source: Tensor, *_: Tensor) -> Tensor:
        return attention(query, source)

    assert torch.autograd.gradcheck(run, (query, source, *parameters))


def test_slopes_favour_the_own_instant() -> None:
    """With equal scores, a steep slope makes the output the source of the same instant."""
    attention = TemporalAttention(4, 1)
    for layer in (attention.q, attention.kv, attention.proj):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        attention.slopes.fill_(50.0)
        attention.kv.weight[4:] = torch.eye(4)
        attention.proj.weight.copy_(torch.eye(4))
    source = torch.rand(1, 3, 2, 2, 4)
    torch.testing.assert_close(attention(torch.rand(1, 3, 2, 2, 4), source), source)
    twice = source.repeat_interleave(2, dim=1)
    torch.testing.assert_close(attention(torch.rand(1, 3, 2, 2, 4), twice), source)


class Largest(TorchDispatchMode):
    """SupervisorLink for the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


def test_products_of_all_pairs_and_channels_are_never_made() -> None:
    attention = TemporalAttention(32, 4)
    query, source = torch.rand(2, 6, 4, 4, 32), torch.rand(2, 7, 4, 4, 32)
    with Largest() as largest:
        attention(query, source).sum().backward()
    assert largest.numbers <= max(source.numel(), attention.kv.weight.numel())


def test_resampling_time_keeps_what_is_linear_in_time() -> None:
    """The axes span the same time: inner instants of a ramp stay on it."""
    ramp = (torch.arange(6) + 0.5).view(1, 6, 1, 1, 1).expand(2, -1, 2, 3, 4)
    torch.testing.assert_close(resample_time(ramp, 3)[0, :, 0, 0, 0], torch.tensor([1.0, 3.0, 5.0]))
    doubled = resample_time(ramp, 12)[1, 1:-1, 1, 2, 3]
    torch.testing.assert_close(doubled, (torch.arange(1, 11) + 0.5) / 2)
    assert resample_time(ramp, 6) is ramp
