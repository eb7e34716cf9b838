"""VRT with a spike branch: restored frames from blurred frames and spike voxels.

In: blurred frames `(b, t, 3, h, w)` in [0, 1] and voxels `(b, s, k, hs, ws)` over the same span of
time and space; s and t may differ. Out: restored frames `(b, t, 3, h, w)`. The encoder gives spike
features at four scales. They attend to each other along time, and are fused with the frame feature
after each of VRT's stages 1 to 4; the fused feature goes to the next stage and into the skip
connections. With `ConcatFusion` there is no attention between spikes, and fusion comes before the
attention of each stage.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.model.fusion import ConcatFusion, CrossAttentionFusion
from vrtspike.model.grid import check_voxels, on_grid, pad_to_unit, to_patches
from vrtspike.model.spike_encoder import SpikeEncoder3D
from vrtspike.model.temporal import SpikeTemporalAttention
from vrtspike.model.vrt import VRT


class SpikeVRT(nn.Module):
    """A VRT, a spike encoder, attention over spikes, and the fusion with frames.

    `temporal` and `fusion` hold one module for each of the four scales, finest first; `temporal` is
    empty with `ConcatFusion`.
    """

    def __init__(
        self,
        vrt: VRT,
        encoder: SpikeEncoder3D,
        temporal: Sequence[SpikeTemporalAttention],
        fusion: Sequence[CrossAttentionFusion] | Sequence[ConcatFusion],
    ) -> None:
        super().__init__()
        self.vrt, self.encoder = vrt, encoder
        self.unit, self.patch = vrt.unit, vrt.patch
        self.spike_channels = encoder.conv_first.in_channels // vrt.patch**2
        self.temporal = nn.ModuleList(temporal)
        self.fusion = nn.ModuleList(fusion)
        self.before_stages = isinstance(fusion[0], ConcatFusion)

    def blocks(self) -> list[nn.Module]:
        """Return the parts that are compiled and sharded one by one.

        A `ConcatFusion`, which runs inside a stage, is small and is not a part of its own.
        """
        parts = [*self.vrt.blocks(), self.encoder, *self.temporal]
        return parts if self.before_stages else [*parts, *self.fusion]

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
        voxels = pad_to_unit(on_grid(voxels, *blurred.shape[-2:]), self.unit)
        features = self.encoder(to_patches(voxels, self.patch))
        if self.temporal:
            features = [attend(x) for attend, x in zip(self.temporal, features, strict=True)]

        def fuse(stage: int, x: Tensor) -> Tensor:
            fused: Tensor = self.fusion[stage](x, features[stage])
            return fused

        if self.before_stages:
            return self.vrt.restore(blurred, start=start, flow_frames=flow_frames, enter=fuse)
        return self.vrt.restore(blurred, start=start, flow_frames=flow_frames, leave=fuse)
