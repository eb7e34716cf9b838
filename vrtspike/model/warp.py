"""Warping by optical flow, for many frame pairs in one call.

In: images or features `(n, c, h, w)` and a flow `(n, 2, h, w)` in pixels, channel 0 along x: the
value at (y, x) is taken from (y + flow_y, x + flow_x). Pixel centres are at integers
(align_corners=True). Out: the same shape as the input, or four times the channels for nearest-4.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """Return float32 for half types: positions in pixels need more than their eight bits."""
    return x.float() if x.element_size() < 4 else x


def sampling_positions(flow: Float[Tensor, "n 2 h w"]) -> tuple[Tensor, Tensor]:
    """Return the absolute x and y positions `(n, h, w)` that a flow points at."""
    height, width = flow.shape[-2:]
    flow = full_precision(flow)
    x = torch.arange(width, device=flow.device, dtype=flow.dtype) + flow[:, 0]
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 1]
    return x, y


@lru_cache(maxsize=32)
def pixel_grid(
    height: int, width: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the [-1, 1] grid of `grid_sample(align_corners=True)` that samples every pixel itself.

    First the step from a pixel to the next, `(2, 1, 1)`, then the grid `(2, h, w)`; x before y.
    """
    with torch.inference_mode(False):  # what is kept here may take part in training later
        steps = [2.0 / max(size - 1, 1) for size in (width, height)]
        step = torch.tensor(steps, device=device, dtype=dtype)[:, None, None]
        x = torch.arange(width, device=device, dtype=dtype).expand(height, -1)
        y = torch.arange(height, device=device, dtype=dtype)[:, None].expand(-1, width)
        return step, torch.stack((x, y)) * step - 1.0


def flow_warp(
    image: Float[Tensor, "n c h w"], flow: Float[Tensor, "n 2 h w"], *, padding: str = "zeros"
) -> Float[Tensor, "n c h w"]:
    """Warp by bilinear sampling; `padding` (zeros, border) is what lies outside the image."""
    flow = full_precision(flow)
    step, places = pixel_grid(*image.shape[-2:], flow.device, flow.dtype)
    grid = torch.addcmul(places, flow, step).to(image.dtype)
    grid = rearrange(grid, "n two h w -> n h w two")
    return F.grid_sample(image, grid, padding_mode=padding, align_corners=True)


@torch.no_grad()
def warp_patches(
    image: Float[Tensor, "n c h w"], flow: Float[Tensor, "n 2 hp wp"], patch: int
) -> Float[Tensor, "n c h w"]:
    """Warp an image bilinearly by the flow of its patches, in patches. No gradient passes."""
    fine = F.interpolate(flow, scale_factor=patch, mode="bilinear", align_corners=False) * patch
    return flow_warp(image, fine)


@torch.no_grad()
def nearest4_warp(
    image: Float[Tensor, "n c h w"], flow: Float[Tensor, "n 2 h w"]
) -> Float[Tensor, "n 4*c h w"]:
    """Stack the four pixels around each sampling position; those outside the image are zero.

    Order: (floor x, floor y), (floor x, ceil y), (ceil x, floor y), (ceil x, ceil y). No gradient
    reaches the flow, nor the image, which is an input.
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
