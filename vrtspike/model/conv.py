"""Convolution over video in channels-last layout.

In and out: `(b, t, h, w, c)`. The parameters are those of `nn.Conv3d`, so their names and shapes
are too; frames are folded into the batch of a 2-D convolution wherever that is exact, because 3-D
kernels are slow, on CPU above all, and the layout needs no copy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class VideoConv(nn.Conv3d):
    """A Conv3d with "same" padding, odd kernels and a stride in space."""

    def __init__(
        self, c_in: int, c_out: int, kernel: tuple[int, int, int], *, stride: int = 1
    ) -> None:
        if any(size % 2 == 0 for size in kernel):
            raise ValueError(f"kernel sizes must be odd, got {kernel}")
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(c_in, c_out, kernel, stride=(1, stride, stride), padding=padding)

    def forward(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h2 w2 o"]:
        """Convolve; the taps along t become channels of a 2-D convolution."""
        taps, frames = self.kernel_size[0], x.shape[1]
        if taps > 1:
            x = F.pad(x, (0,) * 6 + (taps // 2, taps // 2))
            x = torch.cat([x[:, i : i + frames] for i in range(taps)], dim=-1)
        out = F.conv2d(
            rearrange(x, "b t h w c -> (b t) c h w"),
            rearrange(self.weight, "o c k i j -> o (k c) i j"),
            self.bias,
            stride=self.stride[1:],
            padding=self.padding[1:],
        )
        return rearrange(out, "(b t) c h w -> b t h w c", t=frames)
