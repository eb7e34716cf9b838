"""Convolution over video in channels-last layout.

In and out: `(b, t, h, w, c)`. The parameters have the names and shapes of `nn.Conv3d`. Each tap of
the kernel along t is a 2-D convolution of all frames; the results are shifted in time and added.
This is faster than a 3-D kernel, above all on a CPU. The layout needs no copy, and only the input
is kept for the backward pass.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.errors import ConfigError


class VideoConv(nn.Conv3d):
    """A Conv3d with "same" padding, odd kernels, and strides in space and in time."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: tuple[int, int, int],
        *,
        stride: int = 1,
        temporal_stride: int = 1,
    ) -> None:
        if any(size % 2 == 0 for size in kernel):
            raise ConfigError(
                "a convolution over video needs a centre",
                got=f"kernel {kernel}",
                expected="odd sizes",
                fix="change model.spike.kernel",
            )
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(
            c_in, c_out, kernel, stride=(temporal_stride, stride, stride), padding=padding
        )

    def forward(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t2 h2 w2 o"]:
        """Convolve; t2, h2 and w2 are t, h and w divided by the strides, rounded up."""
        frames, centre = x.shape[1], self.padding[0]
        images = rearrange(x, "b t h w c -> (b t) c h w")
        out: Tensor | None = None
        for tap, weight in enumerate(self.weight.unbind(2)):
            later = int(centre) - tap
            if abs(later) >= frames:
                continue
            part = F.conv2d(
                images,
                weight,
                self.bias if later == 0 else None,
                stride=self.stride[1:],
                padding=self.padding[1:],
            )
            part = rearrange(part, "(b t) c h w -> b t h w c", t=frames)
            if later:
                part = F.pad(part, (0,) * 6 + (later, -later))
            out = part if out is None else out + part
        assert out is not None
        return out[:, :: self.stride[0]]
