"""Attention in windows against every window by itself, and against the library."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from vrtspike.model import window_attention
from vrtspike.model.attention import WindowAttention
from vrtspike.model.window_attention import attend_by_sdpa, attend_windows
from vrtspike.model.windows import Grid, Window, relative_position_index, sine_position


def test_bias_index_of_the_published_windows() -> None:
    """Three entries measured on the published implementation."""
    index = relative_position_index((2, 8, 8), (2, 8, 8), torch.device("cpu"))
    assert (index[0, 0], index[0, -1], index[-1, 0]) == (337, 0, 674)


def test_bias_index_of_a_shorter_window_is_a_corner_of_the_whole() -> None:
    device = torch.device("cpu")
    whole = relative_position_index((6, 4, 4), (6, 4, 4), device)
    clipped = relative_position_index((5, 4, 4), (6, 4, 4), device)
    assert torch.equal(clipped, whole[:80, :80])


@pytest.mark.parametrize("block_scores", [window_attention.BLOCK_SCORES, 4 * 2 * 32**2, 1])
@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 2, 2), (0, 2, 1)])
@pytest.mark.parametrize("mutual", [False, True])
def test_shifted_windows_equal_attention_with_a_mask_for_each_window(
    mutual: bool, shift: Window, block_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compute every window by itself, with a mask from the tokens' places before the shift."""
    monkeypatch.setattr(window_attention, "BLOCK_SCORES", block_scores)
    attention = WindowAttention(8, (2, 4, 4), 2, mutual=mutual)
    video = torch.rand(1, 4, 12, 8, 8)
    got = attention(attention.pack(video), (2, 4, 4), shift)
    size = video.shape[1:4]
    place = torch.stack(torch.meshgrid(*(torch.arange(s) for s in size), indexing="ij"), dim=-1)
    wrapped = torch.stack(
        [place[..., i] >= size[i] - shift[i] for i in range(3)], dim=-1
    )  # tokens that the roll carried around, by axis
    for t, i, j in product(range(0, 4, 2), range(0, 12, 4), range(0, 8, 4)):
        cut = (slice(t, t + 2), slice(i, i + 4), slice(j, j + 4))
        region = wrapped[cut].reshape(32, 3)
        same = (region[:, None] == region[None]).all(-1)
        tokens = video[0][cut].reshape(32, 8)
        expected = _attend_naively(attention, tokens, same, region[:, 1:])
        torch.testing.assert_close(got[0][cut].reshape(32, 8), expected)


@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 2, 1)])
@pytest.mark.parametrize("mutual", [False, True])
def test_blockwise_attention_has_the_gradients_of_the_formula(mutual: bool, shift: Window) -> None:
    inputs, grid = _attention_inputs(mutual, shift, torch.float64)
    assert torch.autograd.gradcheck(lambda *x: attend_windows(*x, grid), inputs, fast_mode=True)


@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 2, 1)])
@pytest.mark.parametrize("mutual", [False, True])
def test_blockwise_attention_equals_the_library(mutual: bool, shift: Window) -> None:
    """Both ways, CPU and elsewhere, give the same values and gradients."""
    inputs, grid = _attention_inputs(mutual, shift, torch.float64)
    results = []
    for attend in (attend_windows, attend_by_sdpa):
        out = attend(*inputs, grid)
        wanted = [x for x in inputs if x is not None]
        results.append((out, *torch.autograd.grad(out.square().sum(), wanted)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_half_precision_scores_are_computed_in_full() -> None:
    inputs, grid = _attention_inputs(True, (1, 2, 1), torch.float32)
    expected = attend_windows(*inputs, grid)
    half = [None if x is None else x.detach().bfloat16() for x in inputs]
    got = attend_windows(*half, grid)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), expected, atol=0.03, rtol=0.03)


def _attention_inputs(
    mutual: bool, shift: Window, dtype: torch.dtype
) -> tuple[tuple[torch.Tensor | None, ...], Grid]:
    """Return (qkv, bias, code) for a grid of 2 x 2 x 2 windows and two heads of width 3."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    qkv = draw(1, 4, 8, 4, 36 if mutual else 18)
    code = draw(8, 18) if mutual else None
    return (qkv, draw(2, 16, 16), code), Grid((2, 4, 2), shift, 2)


def _attend_naively(
    attention: WindowAttention, x: torch.Tensor, same: torch.Tensor, space: torch.Tensor
) -> torch.Tensor:
    index = relative_position_index((2, 4, 4), (2, 4, 4), x.device)
    bias = attention.relative_position_bias_table[index]
    parts = []
    q, k, v = attention.qkv_self(x).chunk(3, dim=-1)
    parts.append(_heads(q, k, v, same, bias))
    if attention.mutual:
        q, k, v = attention.qkv_mut(x + sine_position(4, 4, 8, x.device).repeat(2, 1)).chunk(3, -1)
        spatial = (space[:16, None] == space[None, :16]).all(-1)
        first = _heads(q[16:], k[:16], v[:16], spatial, None)
        second = _heads(q[:16], k[16:], v[16:], spatial, None)
        parts.insert(0, torch.cat((first, second)))
    return attention.proj(torch.cat(parts, dim=-1))


def _heads(q, k, v, same, bias):  # type: ignore[no-untyped-def]
    outs = []
    for m in range(2):
        part = slice(4 * m, 4 * m + 4)
        score = q[:, part] @ k[:, part].T / 2 + torch.where(same, 0.0, -100.0)
        if bias is not None:
            score = score + bias[..., m]
        outs.append(score.softmax(-1) @ v[:, part])
    return torch.cat(outs, dim=-1)
