"""Bring frames and spikes to one grid of pixels, and to the patches that a transformer works on.

A patch is a square of pixels that becomes the channels of one token: `(c, p, p)` in that order, as
`pixel_unshuffle` lays them out.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vrtspike.errors import DataFormatError
from vrtspike.model.temporal import resample_time


def beside_frames(
    frames: Float[Tensor, "b t c h w"],
    voxels: Float[Tensor, "b s k hs ws"] | None,
    *,
    channels: int,
    unit: int,
) -> tuple[Float[Tensor, "b t c h2 w2"], Float[Tensor, "b t k h2 w2"] | None]:
    """Bring spikes to the frames' grid and instants, and pad both to multiples of `unit`.

    `channels` are those of the spikes that the model sees; 0: it takes none.
    """
    spikes = None
    if channels:
        voxels = check_voxels(voxels, frames, channels)
        spikes = resample_time(on_grid(voxels, *frames.shape[-2:]), frames.shape[1])
        spikes = pad_to_unit(spikes, unit)
    return pad_to_unit(frames, unit), spikes


def check_voxels(voxels: Tensor | None, blurred: Tensor, channels: int) -> Tensor:
    """Return voxels `(b, s, k, hs, ws)` that go with the frames, or raise DataFormatError."""
    if (
        voxels is None
        or voxels.ndim != 5
        or voxels.shape[0] != blurred.shape[0]
        or voxels.shape[1] < 1
        or voxels.shape[2] != channels
    ):
        raise DataFormatError(
            "the fused model needs voxels beside the frames",
            got="none" if voxels is None else f"shape {tuple(voxels.shape)}",
            expected=f"(b={blurred.shape[0]}, s, k={channels}, hs, ws), s instants of their time",
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


def padding_to_unit(height: int, width: int, unit: int) -> tuple[int, int]:
    """Return how many rows and columns are missing to multiples of `unit`."""
    return -height % unit, -width % unit


def pad_to_unit(video: Float[Tensor, "b t c h w"], unit: int) -> Float[Tensor, "b t c h2 w2"]:
    """Replicate the border up to multiples of `unit`."""
    bottom, right = padding_to_unit(video.shape[-2], video.shape[-1], unit)
    if not (bottom or right):
        return video
    flat = rearrange(video, "b t c h w -> b (t c) h w")
    flat = F.pad(flat, (0, right, 0, bottom), mode="replicate")
    return rearrange(flat, "b (t c) h w -> b t c h w", c=video.shape[2])


def crop(
    video: Float[Tensor, "b t c h2 w2"], height: int, width: int
) -> Float[Tensor, "b t c h w"]:
    """Undo `pad_to_unit`. The result is no view, which a sharded module must not return."""
    if video.shape[-2:] == (height, width):
        return video
    return video[..., :height, :width].contiguous()


def to_patches(video: Float[Tensor, "b t c h w"], patch: int) -> Float[Tensor, "b t hp wp cpp"]:
    """Make tokens, channels last, of squares of `patch` x `patch` pixels."""
    return rearrange(video, "b t c (h p) (w q) -> b t h w (c p q)", p=patch, q=patch)


def from_patches(tokens: Float[Tensor, "b t hp wp cpp"], patch: int) -> Float[Tensor, "b t c h w"]:
    """Undo `to_patches`."""
    return rearrange(tokens, "b t h w (c p q) -> b t c (h p) (w q)", p=patch, q=patch)
