"""The spike encoder: voxels to features at the four scales of VRT's encoder.

In: voxels `(b, t, k, hs, ws)` and the frame grid (h, w). Out: channels-last features
`(b, t, h/s, w/s, c)` for s = 1, 2, 4, 8. A coarser spike sensor is resized to the frame grid first.
Conv3d k -> c and ReLU; at each scale residual blocks (Conv3d, ReLU, Conv3d, add, ReLU), with a
strided Conv3d between scales.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.model.conv import VideoConv

SCALES = 4
Kernel = tuple[int, int, int]


class ResidualBlock3D(nn.Module):
    """relu(x + conv(relu(conv(x))))."""

    def __init__(self, channels: int, kernel: Kernel) -> None:
        super().__init__()
        self.conv1 = VideoConv(channels, channels, kernel)
        self.conv2 = VideoConv(channels, channels, kernel)

    def forward(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
        """Apply both convolutions and the skip."""
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class SpikeEncoder3D(nn.Module):
    """Encode spike voxels at four scales."""

    def __init__(
        self, bins: int, channels: int, *, blocks: int = 2, kernel: Kernel = (3, 3, 3)
    ) -> None:
        super().__init__()
        self.conv_first = VideoConv(bins, channels, kernel)
        self.down = nn.ModuleList(
            VideoConv(channels, channels, kernel, stride=2) for _ in range(SCALES - 1)
        )
        self.scales = nn.ModuleList(
            nn.Sequential(*(ResidualBlock3D(channels, kernel) for _ in range(blocks)))
            for _ in range(SCALES)
        )

    def forward(self, voxels: Float[Tensor, "b t k hs ws"], size: tuple[int, int]) -> list[Tensor]:
        """Return the features `(b, t, h/s, w/s, c)`, finest first."""
        if voxels.shape[-2:] != size:
            flat = rearrange(voxels, "b t k h w -> b (t k) h w")
            flat = F.interpolate(flat, size, mode="bilinear", align_corners=False)
            voxels = rearrange(flat, "b (t k) h w -> b t k h w", k=voxels.shape[2])
        x = F.relu(self.conv_first(rearrange(voxels, "b t k h w -> b t h w k")))
        features = []
        for i, scale in enumerate(self.scales):
            x = scale(x if i == 0 else self.down[i - 1](x))
            features.append(x)
        return features
