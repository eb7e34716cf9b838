"""Resample spikes to the pixels of the frames, pad both, and cut them into patches.

A patch is a square of p x p pixels that becomes the channels of one token, in the order `(c, p, p)`
of `pixel_unshuffle`.
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
    """Resample spikes to the frames' pixels and instants, and pad both to multiples of `unit`.

    `channels` is the number of spike channels of the model; 0 means a model without spikes. Raise
    DataFormatError if the model takes spikes and the voxels do not match.
    """
    spikes = None
    if channels:
        voxels = check_voxels(voxels, frames, channels)
        spikes = resample_time(on_grid(voxels, *frames.shape[-2:]), frames.shape[1])
        spikes = pad_to_unit(spikes, unit)
    return pad_to_unit(frames, unit), spikes


def check_voxels(voxels: Tensor | None, blurred: Tensor, channels: int) -> Tensor:
    """Return the voxels `(b, s, k, hs, ws)`; raise DataFormatError if they are missing or b or k
    does not match."""
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
    """Resize voxels bilinearly to `height` x `width` pixels of the same field of view."""
    if voxels.shape[-2:] == (height, width):
        return voxels
    flat = rearrange(voxels, "b s k h w -> b (s k) h w")
    flat = F.interpolate(flat, (height, width), mode="bilinear", align_corners=False)
    return rearrange(flat, "b (s k) h w -> b s k h w", k=voxels.shape[2])


def padding_to_unit(height: int, width: int, unit: int) -> tuple[int, int]:
    """Return how many rows and columns to add to reach multiples of `unit`."""
    return -height % unit, -width % unit


def pad_to_unit(video: Float[Tensor, "b t c h w"], unit: int) -> Float[Tensor, "b t c h2 w2"]:
    """Pad below and to the right to multiples of `unit`, by replicating the border."""
    bottom, right = padding_to_unit(video.shape[-2], video.shape[-1], unit)
    if not (bottom or right):
        return video
    flat = rearrange(video, "b t c h w -> b (t c) h w")
    flat = F.pad(flat, (0, right, 0, bottom), mode="replicate")
    return rearrange(flat, "b (t c) h w -> b t c h w", c=video.shape[2])


def crop(
    video: Float[Tensor, "b t c h2 w2"], height: int, width: int
) -> Float[Tensor, "b t c h w"]:
    """Undo `pad_to_unit`. The result is a copy, because a sharded module must not return a view."""
    if video.shape[-2:] == (height, width):
        return video
    return video[..., :height, :width].contiguous()


def to_patches(video: Float[Tensor, "b t c h w"], patch: int) -> Float[Tensor, "b t hp wp cpp"]:
    """Turn squares of `patch` x `patch` pixels into tokens, channels last."""
    return rearrange(video, "b t c (h p) (w q) -> b t h w (c p q)", p=patch, q=patch)


def from_patches(tokens: Float[Tensor, "b t hp wp cpp"], patch: int) -> Float[Tensor, "b t c h w"]:
    """Undo `to_patches`."""
    return rearrange(tokens, "b t h w (c p q) -> b t c (h p) (w q)", p=patch, q=patch)
