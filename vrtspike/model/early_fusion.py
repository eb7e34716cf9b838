"""VRT with spikes as a fourth channel of its input: the simplest fusion.

In: blurred frames `(b, t, 3, h, w)` in [0, 1] and voxels `(b, s, k, hs, ws)` over the same span of
time and space. Out: restored frames `(b, t, 3, h, w)`. A 1x1 convolution reduces the voxels to one
channel; it starts as the mean over the k bins. Optical flow and the residual use only RGB.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.model.grid import check_voxels, on_grid
from vrtspike.model.temporal import resample_time
from vrtspike.model.vrt import VRT


class EarlyFusionVRT(nn.Module):
    """A VRT with four input channels, and the convolution that makes the fourth from spikes."""

    def __init__(self, vrt: VRT, *, spike_channels: int, zero_init: bool = False) -> None:
        super().__init__()
        self.vrt, self.spike_channels = vrt, spike_channels
        self.unit, self.patch = vrt.unit, vrt.patch
        self.reduce = nn.Conv2d(spike_channels, 1, 1)
        nn.init.constant_(self.reduce.weight, 1 / spike_channels)
        if self.reduce.bias is not None:
            nn.init.zeros_(self.reduce.bias)
        if zero_init:
            with torch.no_grad():
                views = rearrange(
                    vrt.conv_first.weight, "o (v c p) t h w -> v c o p t h w", c=4, p=vrt.patch**2
                )
                views[:, 3] = 0

    def blocks(self) -> list[nn.Module]:
        """Return the parts that are compiled and sharded one by one."""
        return self.vrt.blocks()

    def forward(
        self,
        blurred: Float[Tensor, "b t 3 h w"],
        voxels: Float[Tensor, "b s k hs ws"] | None = None,
        *,
        start: Tensor | None = None,
        flow_frames: Tensor | None = None,
    ) -> Float[Tensor, "b t 3 h w"]:
        """Restore sharp frames from blurred frames and spikes.

        `start` and `flow_frames` are as in `VRT.restore`.
        """
        voxels = check_voxels(voxels, blurred, self.spike_channels)
        channel = self.reduce(rearrange(voxels, "b s k h w -> (b s) k h w"))
        channel = rearrange(channel, "(b s) 1 h w -> b s 1 h w", s=voxels.shape[1])
        channel = resample_time(on_grid(channel, *blurred.shape[-2:]), blurred.shape[1])
        inputs = torch.cat((blurred, channel.to(blurred.dtype)), dim=2)
        return self.vrt.restore(inputs, start=start, flow_frames=flow_frames)
