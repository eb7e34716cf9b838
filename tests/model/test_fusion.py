"""Ways to bring spikes into the frames' feature, each against a plain reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vrtspike.model.fusion import ConcatFusion, SpikeWindowAttention


def naive(attention: SpikeWindowAttention, query: Tensor, source: Tensor) -> Tensor:
    """Compute attention of each pixel to its padded window, with a mask for what was padded."""
    _, instants, height, width, channels = query.shape
    keys, size, edge = source.shape[1], channels // attention.heads, attention.window
    q = attention.q(query)
    k, v = attention.kv(source).chunk(2, dim=-1)
    out = torch.zeros_like(q)
    for y in range(height):
        for x in range(width):
            top, left = y // edge * edge, x // edge * edge
            for m in range(attention.heads):
                part = slice(m * size, (m + 1) * size)
                scores, values = [], []
                for s in range(keys):
                    for i in range(edge):
                        for j in range(edge):
                            inside = top + i < height and left + j < width
                            ky, kx = (top + i, left + j) if inside else (y, x)
                            row = (y - top - i + edge - 1) * (2 * edge - 1) + x - left - j
                            bias = attention.relative_position_bias_table[row + edge - 1, m]
                            at = (torch.arange(instants) + 0.5) - (s + 0.5) * instants / keys
                            dot = (q[:, :, y, x, part] * k[:, s, None, ky, kx, part]).sum(-1)
                            score = dot * size**-0.5 + bias - attention.slopes[m] * at.abs()
                            scores.append(score if inside else torch.full_like(score, -torch.inf))
                            values.append(v[:, s, None, ky, kx, part])
                weights = torch.stack(scores).softmax(0)[..., None]
                out[:, :, y, x, part] = (weights * torch.stack(values)).sum(0)
    return attention.proj(out)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 7), (2, 6)])
@pytest.mark.parametrize(("instants", "keys"), [(2, 2), (2, 3)])
def test_window_attention_equals_the_formula(
    height: int, width: int, instants: int, keys: int
) -> None:
    torch.manual_seed(0)
    attention = SpikeWindowAttention(4, 2, 4).double()
    torch.nn.init.normal_(attention.relative_position_bias_table)
    query = torch.randn(2, instants, height, width, 4, dtype=torch.float64)
    source = torch.randn(2, keys, height, width, 4, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(attention(query, source), naive(attention, query, source))


@pytest.mark.slow
def test_gradients_of_window_attention_equal_differences() -> None:
    attention = SpikeWindowAttention(2, 1, 2).double()
    query = torch.randn(1, 2, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    source = torch.randn(1, 1, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    parameters = tuple(attention.parameters())

    def run(query: Tensor, source: Tensor, *_: Tensor) -> Tensor:
        return attention(query, source)

    assert torch.autograd.gradcheck(run, (query, source, *parameters))


def test_window_attention_does_not_keep_scores() -> None:
    attention, kept = SpikeWindowAttention(4, 2, 4), []
    x = torch.rand(1, 3, 8, 8, 4)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        attention(x, x)
    assert max(saved.numel() for saved in kept) <= 2 * x.numel()


def test_concatenation_mixes_both_features() -> None:
    fusion = ConcatFusion(4)
    frames, spikes = torch.rand(2, 3, 4, 5, 4), torch.rand(2, 3, 4, 5, 4)
    left, right = fusion.mix.weight.chunk(2, dim=1)
    expected = frames @ left.T + spikes @ right.T + fusion.mix.bias
    torch.testing.assert_close(fusion(frames, spikes), expected)
    still = spikes[:, :1].expand(-1, 5, -1, -1, -1)
    torch.testing.assert_close(
        fusion(frames, still), fusion(frames, spikes[:, :1].expand_as(frames))
    )


def test_concatenation_starts_as_the_identity() -> None:
    frames = torch.rand(2, 3, 4, 5, 4)
    assert torch.equal(ConcatFusion(4, zero_init=True)(frames, torch.rand(2, 7, 4, 5, 4)), frames)
