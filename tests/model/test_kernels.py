"""Fast paths against naive references."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import deform_conv2d

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
