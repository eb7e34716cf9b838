"""The spike encoder: from voxels to features at the four scales of VRT's encoder.

In: spike tokens `(b, s, h, w, k)` at the transformer's resolution (`vrtspike.model.grid`). Out:
channels-last features `(b, s_i, h/2^i, w/2^i, c)`, i = 0 to 3; temporal strides may make s_i
smaller than s. The network is Conv3d k -> c and ReLU, then residual blocks (Conv3d, ReLU, Conv3d,
add, ReLU) at each scale, and a strided Conv3d between scales.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.model.conv import VideoConv

SCALES = 4
Kernel = tuple[int, int, int]


class ResidualBlock3D(nn.Module):
    """Two 3-D convolutions with a skip connection."""

    def __init__(self, channels: int, kernel: Kernel) -> None:
        super().__init__()
        self.conv1 = VideoConv(channels, channels, kernel)
        self.conv2 = VideoConv(channels, channels, kernel)

    def forward(self, x: Float[Tensor, "b s h w c"]) -> Float[Tensor, "b s h w c"]:
        """Return relu(x + conv(relu(conv(x))))."""
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class SpikeEncoder3D(nn.Module):
    """Encode spike voxels at four scales."""

    def __init__(
        self,
        inputs: int,
        channels: int,
        *,
        blocks: int = 2,
        kernel: Kernel = (3, 3, 3),
        temporal_strides: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.conv_first = VideoConv(inputs, channels, kernel)
        self.down = nn.ModuleList(
            VideoConv(channels, channels, kernel, stride=2, temporal_stride=temporal_stride)
            for temporal_stride in temporal_strides
        )
        self.scales = nn.ModuleList(
            nn.Sequential(*(ResidualBlock3D(channels, kernel) for _ in range(blocks)))
            for _ in range(SCALES)
        )

    def forward(self, spikes: Float[Tensor, "b s h w k"]) -> list[Tensor]:
        """Return the features `(b, s_i, h/2^i, w/2^i, c)`, finest first."""
        x = F.relu(self.conv_first(spikes))
        features = []
        for i, scale in enumerate(self.scales):
            x = scale(x if i == 0 else self.down[i - 1](x))
            features.append(x)
        return features
