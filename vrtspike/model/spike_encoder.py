"""The spike encoder: voxels to features at the four scales of VRT's encoder.

In: voxels `(b, s, k, h, w)` on the frames' grid (`on_grid` resizes those of a coarser sensor). Out:
channels-last features `(b, s_i, h/2^i, w/2^i, c)`, i = 0 to 3, where temporal strides may make s_i
smaller than s. Conv3d k -> c and ReLU; at each scale residual blocks (Conv3d, ReLU, Conv3d, add,
ReLU), with a strided Conv3d between scales.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.errors import DataFormatError
from vrtspike.model.conv import VideoConv

SCALES = 4
Kernel = tuple[int, int, int]


class ResidualBlock3D(nn.Module):
    """relu(x + conv(relu(conv(x))))."""

    def __init__(self, channels: int, kernel: Kernel) -> None:
        super().__init__()
        self.conv1 = VideoConv(channels, channels, kernel)
        self.conv2 = VideoConv(channels, channels, kernel)

    def forward(self, x: Float[Tensor, "b s h w c"]) -> Float[Tensor, "b s h w c"]:
        """Apply both convolutions and the skip."""
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class SpikeEncoder3D(nn.Module):
    """Encode spike voxels at four scales."""

    def __init__(
        self,
        bins: int,
        channels: int,
        *,
        blocks: int = 2,
        kernel: Kernel = (3, 3, 3),
        temporal_strides: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.conv_first = VideoConv(bins, channels, kernel)
        self.down = nn.ModuleList(
            VideoConv(channels, channels, kernel, stride=2, temporal_stride=temporal_stride)
            for temporal_stride in temporal_strides
        )
        self.scales = nn.ModuleList(
            nn.Sequential(*(ResidualBlock3D(channels, kernel) for _ in range(blocks)))
            for _ in range(SCALES)
        )

    def forward(self, voxels: Float[Tensor, "b s k h w"]) -> list[Tensor]:
        """Return the features `(b, s_i, h/2^i, w/2^i, c)`, finest first."""
        x = F.relu(self.conv_first(rearrange(voxels, "b s k h w -> b s h w k")))
        features = []
        for i, scale in enumerate(self.scales):
            x = scale(x if i == 0 else self.down[i - 1](x))
            features.append(x)
        return features


def check_voxels(voxels: Tensor | None, blurred: Tensor, bins: int) -> Tensor:
    """Return voxels `(b, s, k, hs, ws)` that go with the frames, or raise DataFormatError."""
    if (
        voxels is None
        or voxels.ndim != 5
        or voxels.shape[0] != blurred.shape[0]
        or voxels.shape[1] < 1
        or voxels.shape[2] != bins
    ):
        raise DataFormatError(
            "the fused model needs voxels beside the frames",
            got="none" if voxels is None else f"shape {tuple(voxels.shape)}",
            expected=f"(b={blurred.shape[0]}, s, k={bins}, hs, ws), s instants over the same time",
            fix="give the clip's spikes, or use a model with fusion: none",
        )
    return voxels


def on_grid(
    voxels: Float[Tensor, "b s k hs ws"], height: int, width: int
) -> Float[Tensor, "b s k h w"]:
    """Resize voxels bilinearly to another grid over the same field of view."""
    if voxels.shape[-2:] == (height, width):
        return voxels
    flat = rearrange(voxels, "b s k h w -> b (s k) h w")
    flat = F.interpolate(flat, (height, width), mode="bilinear", align_corners=False)
    return rearrange(flat, "b (s k) h w -> b s k h w", k=voxels.shape[2])
