"""Fast paths against naive references."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import deform_conv2d

from vrtspike.model.attention import WindowAttention, relative_position_index, sine_position
from vrtspike.model.conv import VideoConv
from vrtspike.model.deform import sampled_deform_conv2d
from vrtspike.model.warp import flow_warp, nearest4_warp


def test_integer_flow_moves_pixels() -> None:
    image, flow = torch.rand(1, 2, 6, 7), torch.zeros(1, 2, 6, 7)
    flow[:, 0], flow[:, 1] = 2, -1
    warped = flow_warp(image, flow)
    torch.testing.assert_close(warped[..., 1:, :-2], image[..., :-1, 2:], atol=1e-5, rtol=1e-4)
    assert warped[..., 0, :].abs().max() < 1e-6 and warped[..., -2:].abs().max() < 1e-6


def test_nearest4_takes_the_four_pixels_around() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 5, 6, generator=generator)
    flow = torch.randn(2, 2, 5, 6, generator=generator) * 3
    got = nearest4_warp(image, flow)
    expected = torch.zeros_like(got)
    for n in range(2):
        for y in range(5):
            for x in range(6):
                px, py = x + flow[n, 0, y, x], y + flow[n, 1, y, x]
                corners = [
                    (fx, fy) for fx in (px.floor(), px.ceil()) for fy in (py.floor(), py.ceil())
                ]
                for i, (cx, cy) in enumerate(corners):
                    if 0 <= cx < 6 and 0 <= cy < 5:
                        expected[n, 3 * i : 3 * i + 3, y, x] = image[n, :, int(cy), int(cx)]
    assert torch.equal(got, expected)


@pytest.mark.parametrize("groups", [1, 2])
def test_sampled_deformable_convolution_equals_torchvision(groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 4, 9, 11), (2, 18 * groups, 9, 11), (3, 4, 3, 3), (3,), (2, 9 * groups, 9, 11)]
    inputs = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    inputs[1] *= 3
    grads = []
    for convolve in (deform_conv2d, sampled_deform_conv2d):
        leaves = [x.float().requires_grad_() for x in inputs]
        x, offset, weight, bias, mask = leaves
        out = convolve(x, offset, weight, bias, padding=1, mask=mask)
        out.square().sum().backward()
        grads.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 3, 3), (3, 1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_video_convolution_equals_conv3d(kernel: tuple[int, int, int], stride: int) -> None:
    conv, x = VideoConv(3, 5, kernel, stride=stride), torch.rand(2, 4, 6, 8, 3)
    expected = F.conv3d(x.permute(0, 4, 1, 2, 3), conv.weight, conv.bias, conv.stride, conv.padding)
    torch.testing.assert_close(conv(x), expected.permute(0, 2, 3, 4, 1), atol=1e-5, rtol=1e-4)


def test_bias_index_of_the_published_windows() -> None:
    """Three entries measured on the published implementation."""
    index = relative_position_index((2, 8, 8), (2, 8, 8), torch.device("cpu"))
    assert (index[0, 0], index[0, -1], index[-1, 0]) == (337, 0, 674)


def test_bias_index_of_a_shorter_window_is_a_corner_of_the_whole() -> None:
    device = torch.device("cpu")
    whole = relative_position_index((6, 4, 4), (6, 4, 4), device)
    clipped = relative_position_index((5, 4, 4), (6, 4, 4), device)
    assert torch.equal(clipped, whole[:80, :80])


@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 2, 2), (0, 2, 1)])
@pytest.mark.parametrize("mutual", [False, True])
def test_shifted_windows_equal_attention_with_a_mask_for_each_window(
    shift: tuple[int, int, int], mutual: bool
) -> None:
    """Compute every window by itself, with a mask from the tokens' places before the shift."""
    window, grid = (2, 4, 4), (2, 3, 2)
    attention = WindowAttention(8, window, 2, mutual=mutual)
    windows = torch.rand(1, *grid, 32, 8)
    got = attention(windows, window, shift)
    size = [g * w for g, w in zip(grid, window, strict=True)]
    place = torch.stack(torch.meshgrid(*(torch.arange(s) for s in size), indexing="ij"), dim=-1)
    wrapped = torch.stack(
        [place[..., i] >= size[i] - shift[i] for i in range(3)], dim=-1
    )  # tokens that the roll carried around, by axis
    for t in range(grid[0]):
        for i in range(grid[1]):
            for j in range(grid[2]):
                cut = wrapped[2 * t : 2 * t + 2, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
                region = cut.reshape(32, 3)
                same = (region[:, None] == region[None]).all(-1)
                expected = _attend_naively(attention, windows[0, t, i, j], same, region[:, 1:])
                torch.testing.assert_close(got[0, t, i, j], expected)


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
