"""VRT with a spike branch: restored frames from blurred frames and spike voxels.

In: blurred frames `(b, t, 3, h, w)` in [0, 1] and voxels `(b, t, k, hs, ws)` over the same span of
time and space. Out: restored frames `(b, t, 3, h, w)`. Encoded spikes attend to each other along t
at four scales; the frames' feature attends to them after each of VRT's stages 1 to 4, and what is
fused goes on to the next stage and into the skips.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.model.spike_encoder import SCALES, SpikeEncoder3D
from vrtspike.model.temporal import SpikeTemporalAttention, TemporalCrossAttention
from vrtspike.model.vrt import VRT, padding_to_unit


class SpikeVRT(nn.Module):
    """Plain VRT (`vrt`), a spike encoder, and the fusion of the two."""

    def __init__(
        self,
        vrt: VRT,
        *,
        bins: int = 32,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        blocks: int = 2,
        kernel: tuple[int, int, int] = (3, 3, 3),
        temporal_bias: bool = True,
        zero_init_fusion: bool = False,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__()
        if vrt.channels % heads:
            raise ConfigError(
                "the spike branch cannot split its channels over its heads",
                got=f"model.channels {vrt.channels}, model.spike.heads {heads}",
                expected="channels divisible by heads",
                fix="change one of the two",
            )
        self.vrt, self.bins = vrt, bins
        self.encoder = SpikeEncoder3D(bins, vrt.channels, blocks=blocks, kernel=kernel)
        self.temporal = nn.ModuleList(
            SpikeTemporalAttention(
                vrt.channels, heads, mlp_ratio, temporal_bias=temporal_bias, max_tokens=max_tokens
            )
            for _ in range(SCALES)
        )
        self.fusion = nn.ModuleList(
            TemporalCrossAttention(
                vrt.channels,
                heads,
                mlp_ratio,
                temporal_bias=temporal_bias,
                max_tokens=max_tokens,
                zero_init=zero_init_fusion,
            )
            for _ in range(SCALES)
        )

    def blocks(self) -> list[nn.Module]:
        """Return the parts that are compiled and sharded one by one."""
        return [*self.vrt.blocks(), self.encoder, *self.temporal, *self.fusion]

    def forward(
        self,
        blurred: Float[Tensor, "b t 3 h w"],
        voxels: Float[Tensor, "b t k hs ws"] | None = None,
    ) -> Float[Tensor, "b t 3 h w"]:
        """Restore sharp frames from blurred ones and spikes."""
        if voxels is None or voxels.shape[:3] != (*blurred.shape[:2], self.bins):
            raise DataFormatError(
                "the fused model needs voxels beside the frames",
                got="none" if voxels is None else f"shape {tuple(voxels.shape)}",
                expected=f"(b={blurred.shape[0]}, t={blurred.shape[1]}, k={self.bins}, hs, ws)",
                fix="give the clip's spikes, or use a model with fusion: none",
            )
        features = self.encoder(*self._on_frame_grid(voxels, blurred))
        features = [attend(x) for attend, x in zip(self.temporal, features, strict=True)]
        return self.vrt.restore(blurred, leave=lambda i, x: self.fusion[i](x, features[i]))

    def _on_frame_grid(self, voxels: Tensor, blurred: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Pad the voxels as VRT pads the frames; return them and the padded frame size."""
        height, width = blurred.shape[-2:]
        bottom, right = padding_to_unit(height, width)
        if bottom or right:
            flat = rearrange(voxels, "b t k h w -> b (t k) h w")
            flat = F.interpolate(flat, (height, width), mode="bilinear", align_corners=False)
            flat = F.pad(flat, (0, right, 0, bottom), mode="replicate")
            voxels = rearrange(flat, "b (t k) h w -> b t k h w", k=self.bins)
        return voxels, (height + bottom, width + right)
