"""VRT, the video restoration transformer, for deblurring (Liang et al., 2022, arXiv 2201.12288).

In: blurred RGB frames `(b, t, 3, h, w)` in [0, 1], t >= 2; with `in_chans` above 3, more channels
follow RGB. Out: restored RGB frames `(b, t, 3, h, w)`.

    flows = SpyNet(all neighbouring frames, both directions, one call)
    x0 = conv_first(frames, their neighbours warped by nearest-4)
    stages 1-4: scales 1, 1/2, 1/4, 1/8; stages 5-7: back up with skips; stage 8 at full scale
    restored = frames + conv_last(x0 + conv_after_body(norm(stage8)))

With a `patch` of 2 or 4 (not in the paper), a token is a square of patch x patch pixels. Optical
flow is estimated at the resolution of the tokens, neighbours are warped bilinearly at full
resolution, frames and neighbours become tokens, and `conv_last` returns the pixels of each token.

Parameters have the published names and shapes. Features are channels-last, `(b, t, h, w, c)`. If
the windows and scales do not divide the size of the frames, we pad by replication and crop the
result; the published implementation fails in this case.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from einops.layers.torch import Rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.errors import DataFormatError
from vrtspike.model.attention import BlockGroup
from vrtspike.model.conv import VideoConv
from vrtspike.model.deform import DeformableAlignment
from vrtspike.model.grid import crop, from_patches, pad_to_unit, to_patches
from vrtspike.model.mlp import GatedMLP
from vrtspike.model.spynet import SpyNet
from vrtspike.model.warp import flow_warp, full_precision, nearest4_warp, warp_patches
from vrtspike.model.windows import Window

SCALES = (1, 2, 4, 8, 4, 2, 1)
ENCODER_STAGES = 4
MAX_RESIDUE = 10.0
RGB = 3
Fuse = Callable[[int, Tensor], Tensor]
DERIVED_BUFFERS = ("relative_position_index", "position_bias")


class Stage(nn.Module):
    """One scale of VRT: mutual attention, self attention, and parallel warping.

    Parallel warping aligns both neighbours of each frame and fuses them with it (section 3.3).
    """

    def __init__(
        self,
        channels: int,
        reshape: str,
        scale: int,
        blocks: int,
        mutual_blocks: int,
        heads: int,
        window: Window,
        mlp_ratio: float,
        drop_path: list[float],
        deformable_groups: int,
        *,
        checkpoint_attention: bool,
        checkpoint_mlp: bool,
    ) -> None:
        super().__init__()
        layers: dict[str, list[nn.Module]] = {
            "none": [nn.Identity(), nn.LayerNorm(channels)],
            "down": [
                Rearrange("b t (h i) (w j) c -> b t h w (j i c)", i=2, j=2),
                nn.LayerNorm(4 * channels),
                nn.Linear(4 * channels, channels),
            ],
            "up": [
                Rearrange("b t h w (j i c) -> b t (h i) (w j) c", i=2, j=2),
                nn.LayerNorm(channels // 4),
                nn.Linear(channels // 4, channels),
            ],
        }
        recompute = {"checkpoint_attention": checkpoint_attention, "checkpoint_mlp": checkpoint_mlp}
        pair: Window = (2, *window[1:])
        self.reshape = nn.Sequential(*layers[reshape])
        self.residual_group1 = BlockGroup(
            channels, pair, heads, mlp_ratio, drop_path[:mutual_blocks], mutual=True, **recompute
        )
        self.linear1 = nn.Linear(channels, channels)
        self.residual_group2 = BlockGroup(
            channels, window, heads, mlp_ratio, drop_path[: blocks - mutual_blocks], **recompute
        )
        self.linear2 = nn.Linear(channels, channels)
        self.pa_deform = DeformableAlignment(
            channels, deformable_groups, MAX_RESIDUE / scale, checkpoint=checkpoint_mlp
        )
        self.pa_fuse = GatedMLP(3 * channels, 3 * channels, channels, checkpoint=checkpoint_mlp)

    def forward(
        self,
        x: Float[Tensor, "b t h w c"],
        flows: tuple[Tensor, Tensor],
        enter: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "b t h2 w2 c"]:
        """Return the feature at this scale.

        `flows` are the backward and the forward flow, each `(b, t-1, 2, h2, w2)`. `enter` may
        change the feature after it was resized and before the attention.
        """
        x = self.reshape(x)
        if enter is not None:
            x = enter(x)
        x = self.linear1(self.residual_group1(x)).add_(x)
        x = self.linear2(self.residual_group2(x)).add_(x)
        fused: Tensor = self.pa_fuse(torch.cat((x, *self._align(x, flows)), dim=-1))
        return fused

    def _align(self, x: Tensor, flows: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Align the features of the next and of the previous frame to each frame, in one call."""
        before, after = x[:, :-1], x[:, 1:]
        neighbour = _to_images(torch.cat((after, before)))
        current = _to_images(torch.cat((before, after)))
        flow = rearrange(torch.cat(flows), "b t c h w -> (b t) c h w")
        warped = flow_warp(neighbour, flow)
        aligned = self.pa_deform(neighbour, warped, current, flow)
        aligned = rearrange(aligned, "(b t) c h w -> b t h w c", t=x.shape[1] - 1)
        return _beside_frames(aligned.to(x.dtype))


def _beside_frames(neighbours: Tensor) -> tuple[Tensor, Tensor]:
    """Return the aligned next frames and previous frames, one of each for each of the t frames.

    `neighbours` holds those of the t-1 pairs, both directions along the batch. The last frame has
    no next frame and the first no previous one: they get zeros.
    """
    backward, forward = neighbours.chunk(2)
    zeros = torch.zeros_like(backward[:, :1])
    return torch.cat((backward, zeros), dim=1), torch.cat((zeros, forward), dim=1)


def _to_images(x: Tensor) -> Tensor:
    return rearrange(x, "b t h w c -> (b t) c h w")


class RefineGroup(nn.Module):
    """A residual group of self-attention blocks at full scale, part of stage 8."""

    def __init__(self, channels: int, group: BlockGroup) -> None:
        super().__init__()
        self.residual_group = group
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
        """Return x + linear(blocks(x))."""
        out: Tensor = self.linear(self.residual_group(x)).add_(x)
        return out


def _entry(channels: int, refine_channels: int) -> nn.Sequential:
    """Return the layers that change the width at the start of stage 8, with published names."""
    return nn.Sequential(
        nn.Identity(), nn.LayerNorm(channels), nn.Linear(channels, refine_channels)
    )


class VRT(nn.Module):
    """The video restoration transformer."""

    def __init__(
        self,
        *,
        in_chans: int = 3,
        patch: int = 1,
        channels: int = 96,
        refine_channels: int = 120,
        blocks: int = 8,
        mutual_ratio: float = 0.75,
        refine_blocks: int = 4,
        refine_groups: tuple[int, int] = (2, 2),
        heads: int = 6,
        window: Window = (6, 8, 8),
        mlp_ratio: float = 2.0,
        drop_path: float = 0.2,
        deformable_groups: int = 16,
        flow_channels: tuple[int, int, int, int] = (32, 64, 32, 16),
        zero_init_output: bool = False,
        zero_init_flow: bool = False,
        checkpoint_attention: bool = False,
        checkpoint_mlp: bool = False,
    ) -> None:
        super().__init__()
        recompute = {"checkpoint_attention": checkpoint_attention, "checkpoint_mlp": checkpoint_mlp}
        depth = len(SCALES) * blocks + sum(refine_groups) * refine_blocks
        rates = np.linspace(0, drop_path, depth).tolist()
        self.in_chans, self.patch, self.channels = in_chans, patch, channels
        self.unit = patch * max(SCALES)
        """The height and width of frames are padded to multiples of this."""
        inputs = (9 if patch == 1 else 3) * in_chans * patch**2
        self.conv_first = VideoConv(inputs, channels, (1, 3, 3))
        self.spynet = SpyNet(flow_channels, zero_init=zero_init_flow)
        for i, scale in enumerate(SCALES):
            stage = Stage(
                channels,
                "none" if i == 0 else "down" if scale > SCALES[i - 1] else "up",
                scale,
                blocks,
                round(blocks * mutual_ratio),
                heads,
                window,
                mlp_ratio,
                rates[i * blocks : (i + 1) * blocks],
                deformable_groups,
                **recompute,
            )
            setattr(self, f"stage{i + 1}", stage)
        refine: list[nn.Module] = [_entry(channels, refine_channels)]
        windows = [window] * refine_groups[0] + [(1, *window[1:])] * refine_groups[1]
        for number, window in enumerate(windows):
            own = rates[len(SCALES) * blocks + number * refine_blocks :][:refine_blocks]
            group = BlockGroup(refine_channels, window, heads, mlp_ratio, own, **recompute)
            refine.append(RefineGroup(refine_channels, group))
        self.stage8 = nn.Sequential(*refine)
        self.norm = nn.LayerNorm(refine_channels)
        self.conv_after_body = nn.Linear(refine_channels, channels)
        self.conv_last = VideoConv(channels, RGB * patch**2, (1, 3, 3))
        for parameter in self.conv_last.parameters() if zero_init_output else ():
            nn.init.zeros_(parameter)
        self.register_load_state_dict_pre_hook(_drop_derived_buffers)  # type: ignore[no-untyped-call]

    def blocks(self) -> list[nn.Module]:
        """Return the parts that are compiled and sharded one by one."""
        return [*self.stages(), *list(self.stage8)[1:]]

    def stages(self) -> list[Stage]:
        """Return stages 1 to 7."""
        return [getattr(self, f"stage{i + 1}") for i in range(len(SCALES))]

    def forward(
        self,
        blurred: Float[Tensor, "b t c h w"],
        voxels: Tensor | None = None,
        *,
        start: Float[Tensor, "b t hp wp k"] | None = None,
        flow_frames: Float[Tensor, "b t 3 h w"] | None = None,
    ) -> Float[Tensor, "b t 3 h w"]:
        """Restore sharp frames; `voxels` is ignored, the other arguments are as in `restore`."""
        del voxels
        return self.restore(blurred, start=start, flow_frames=flow_frames)

    def restore(
        self,
        blurred: Tensor,
        *,
        start: Tensor | None = None,
        flow_frames: Tensor | None = None,
        enter: Fuse | None = None,
        leave: Fuse | None = None,
    ) -> Tensor:
        """Restore sharp frames from `(b, t, in_chans, h, w)`; the first three channels are RGB.

        `start` `(b, t, h/patch, w/patch, c)` is added to the first feature. Optical flow is
        estimated on `flow_frames`; if None, on `blurred`. For encoder stages i = 0 to 3,
        `enter(i, x)` may change the feature `(b, t, h, w, c)` before the attention, and
        `leave(i, x)` the output, which goes to the next stage and into the skip connection.
        Raise DataFormatError for fewer than two frames or another number of channels.
        """
        self._check(blurred)
        frames = pad_to_unit(blurred, self.unit)
        flow_input = (
            frames[:, :, :RGB] if flow_frames is None else pad_to_unit(flow_frames, self.unit)
        )
        flows = self._flows(flow_input)
        x = self._first(frames, flows)
        if start is not None:
            x = x + start
        x = x + self.conv_after_body(self._features(x, flows, enter, leave))
        residual = from_patches(self.conv_last(x), self.patch)
        restored: Tensor = frames[:, :, :RGB] + residual.to(frames.dtype)
        return crop(restored, *blurred.shape[-2:])

    def _check(self, blurred: Tensor) -> None:
        """Refuse fewer than two frames, and another number of channels than `in_chans`."""
        frames, channels = blurred.shape[1:3]
        if frames < 2:
            raise DataFormatError(
                "VRT restores a video from its neighbouring frames",
                got=f"{frames} frame",
                expected="at least 2",
                fix="give a longer clip",
            )
        if channels != self.in_chans:
            raise DataFormatError(
                "the frames do not have the model's channels",
                got=f"shape {tuple(blurred.shape)}",
                expected=f"(b, t, {self.in_chans}, h, w)",
                fix="give RGB frames, and spikes as voxels",
            )

    def _flows(self, frames: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return (backward, forward) flows `(b, t-1, 2, h, w)` for each of four scales.

        The first scale is that of the tokens. backward[t] points from frame t to frame t+1 and so
        warps t+1 to t; forward[t] points from t+1 to t.
        """
        with torch.autocast(frames.device.type, enabled=False):
            images = full_precision(frames)
            before = rearrange(images[:, :-1], "b t c h w -> (b t) c h w")
            after = rearrange(images[:, 1:], "b t c h w -> (b t) c h w")
            pairs = [torch.cat((before, after)), torch.cat((after, before))]
            if self.patch > 1:
                pairs = [F.avg_pool2d(images, self.patch) for images in pairs]
            scales = self.spynet(*pairs, scale=self.patch)
            while len(scales) < ENCODER_STAGES:  # SpyNet ends at 1/8 of full resolution
                scales.append(F.avg_pool2d(scales[-1], 2) / 2)
        split = []
        for flow in scales:
            flow = rearrange(flow, "(two b t) c h w -> two b t c h w", two=2, b=frames.shape[0])
            split.append((flow[0], flow[1]))
        return split

    def _first(self, frames: Tensor, flows: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Embed each frame together with its two warped neighbours."""
        neighbours = rearrange(
            torch.cat((frames[:, 1:], frames[:, :-1])), "b t c h w -> (b t) c h w"
        )
        flow = rearrange(torch.cat(flows[0]), "b t c h w -> (b t) c h w")
        if self.patch == 1:
            warped = nearest4_warp(neighbours, flow)
        else:
            warped = warp_patches(neighbours, flow, self.patch)
        warped = rearrange(warped, "(b t) c h w -> b t c h w", t=frames.shape[1] - 1)
        x = torch.cat((frames, *_beside_frames(warped)), dim=2)
        out: Tensor = self.conv_first(to_patches(x, self.patch))
        return out

    def _features(
        self,
        x: Tensor,
        flows: list[tuple[Tensor, Tensor]],
        enter: Fuse | None,
        leave: Fuse | None,
    ) -> Tensor:
        skips: list[Tensor] = []
        for i, stage in enumerate(self.stages()):
            if i > ENCODER_STAGES:  # stages 6 and 7 (i counts from 0); stage 8 takes the first skip
                x = x + skips[len(SCALES) - i]
            in_encoder = i < ENCODER_STAGES
            x = stage(
                x,
                flows[SCALES[i].bit_length() - 1],
                partial(enter, i) if enter is not None and in_encoder else None,
            )
            if in_encoder:
                x = x if leave is None else leave(i, x)
                skips.append(x)
        x = self.stage8(x + skips[0])
        out: Tensor = self.norm(x)
        return out


def _drop_derived_buffers(
    module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """Drop the index and position buffers of published checkpoints: the model computes them."""
    for key in [k for k in state if k.endswith(DERIVED_BUFFERS)]:
        del state[key]
