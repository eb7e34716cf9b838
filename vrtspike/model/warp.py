"""Warping by optical flow, for many frame pairs in one call.

In: images or features `(n, c, h, w)` and a flow `(n, 2, h, w)` in pixels, channel 0 along x. Out:
`(n, c, h, w)`, where the value at (y, x) comes from (y + flow_y, x + flow_x); nearest-4 returns
four times the channels. Pixel centres are at integers (align_corners=True).
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """Convert half types to float32: their mantissa is too short for positions in pixels."""
    return x.float() if x.element_size() < 4 else x


def sampling_positions(flow: Float[Tensor, "n 2 h w"]) -> tuple[Tensor, Tensor]:
    """Return the absolute x and y positions `(n, h, w)` in pixels that a flow points at."""
    height, width = flow.shape[-2:]
    flow = full_precision(flow)
    x = torch.arange(width, device=flow.device, dtype=flow.dtype) + flow[:, 0]
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 1]
    return x, y


@lru_cache(maxsize=32)
def pixel_grid(
    height: int, width: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the step between pixels `(2, 1, 1)` and the identity grid `(2, h, w)`; x before y.

    Both are in the [-1, 1] coordinates of `grid_sample(align_corners=True)`.
    """
    with torch.inference_mode(False):  # a later training may use the cached tensors
        steps = [2.0 / max(size - 1, 1) for size in (width, height)]
        step = torch.tensor(steps, device=device, dtype=dtype)[:, None, None]
        x = torch.arange(width, device=device, dtype=dtype).expand(height, -1)
        y = torch.arange(height, device=device, dtype=dtype)[:, None].expand(-1, width)
        return step, torch.stack((x, y)) * step - 1.0


def flow_warp(
    image: Float[Tensor, "n c h w"], flow: Float[Tensor, "n 2 h w"], *, padding: str = "zeros"
) -> Float[Tensor, "n c h w"]:
    """Warp by bilinear sampling; `padding` (zeros or border) gives the values outside the image."""
    flow = full_precision(flow)
    step, pixels = pixel_grid(*image.shape[-2:], flow.device, flow.dtype)
    grid = torch.addcmul(pixels, flow, step).to(image.dtype)
    grid = rearrange(grid, "n two h w -> n h w two")
    return F.grid_sample(image, grid, padding_mode=padding, align_corners=True)


@torch.no_grad()
def warp_patches(
    image: Float[Tensor, "n c h w"], flow: Float[Tensor, "n 2 hp wp"], patch: int
) -> Float[Tensor, "n c h w"]:
    """Warp an image bilinearly by the flow of its patches, in units of patches. No gradients."""
    fine = F.interpolate(flow, scale_factor=patch, mode="bilinear", align_corners=False) * patch
    return flow_warp(image, fine)


@torch.no_grad()
def nearest4_warp(
    image: Float[Tensor, "n c h w"], flow: Float[Tensor, "n 2 h w"]
) -> Float[Tensor, "n 4*c h w"]:
    """Stack the four pixels around each sampling position; those outside the image are zero.

    Order: (floor x, floor y), (floor x, ceil y), (ceil x, floor y), (ceil x, ceil y). No gradient
    reaches the flow or the image; VRT warps only its input this way.
    """
    height, width = image.shape[-2:]
    x, y = sampling_positions(flow)
    flat = rearrange(image, "n c h w -> n c (h w)")
    samples = []
    for px in (x.floor(), x.ceil()):
        for py in (y.floor(), y.ceil()):
            inside = (px >= 0) & (px < width) & (py >= 0) & (py < height)
            index = py.clamp(0, height - 1) * width + px.clamp(0, width - 1)
            index = rearrange(index.long(), "n h w -> n 1 (h w)").expand(-1, image.shape[1], -1)
            sample = rearrange(flat.gather(2, index), "n c (h w) -> n c h w", h=height)
            samples.append(sample * inside[:, None])
    return torch.cat(samples, dim=1)
