"""Convolution over video against torch's own in three dimensions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from vrtspike.model.conv import VideoConv


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 3, 3), (5, 1, 3)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_equals_conv3d(frames: int, kernel: tuple[int, int, int], strides: tuple[int, int]) -> None:
    time, space = strides
    conv = VideoConv(3, 4, kernel, stride=space, temporal_stride=time).double()
    x = torch.rand(2, frames, 6, 7, 3, dtype=torch.float64, requires_grad=True)
    expected = F.conv3d(
        rearrange(x, "b t h w c -> b c t h w"), conv.weight, conv.bias, conv.stride, conv.padding
    )
    expected = rearrange(expected, "b c t h w -> b t h w c")
    inputs = (x, conv.weight, conv.bias)
    torch.testing.assert_close(conv(x), expected)
    torch.testing.assert_close(
        torch.autograd.grad(conv(x).square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
    )
