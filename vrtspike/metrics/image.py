"""Image quality metrics, computed as in published tables.

In: RGB frames rounded to uint8, `(..., c, h, w)` with any leading axes (`to_uint8` rounds floats in
[0, 1]), or their `luma` in float64. Out: one float64 number for each frame.

    PSNR  = 10 log10(255^2 / mean squared error), over all pixels and channels; inf for equal frames
    SSIM  = Wang et al. 2004: Gaussian window 11x11 of sigma 1.5, population covariance, borders of
            5 pixels left out, mean over pixels and channels
    tdiff = mean of |(r_t - r_t-1) - (s_t - s_t-1)| over all pixels and channels, in gray levels, of
            the restored video r and the sharp video s: it measures flicker

PSNR and SSIM give the same values as scikit-image (`structural_similarity(gaussian_weights=True,
sigma=1.5, use_sample_covariance=False, data_range=255)`), and luma those of its `rgb2ycbcr` and of
MATLAB. LPIPS is in `vrtspike.metrics.perceptual`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from vrtspike.errors import DataFormatError
from vrtspike.metrics.pairs import checked_pair

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
LUMA = (65.481, 128.553, 24.966)
"""Weights of R, G and B in [0, 1] in Y of BT.601, without its offset of 16."""


def to_uint8(frames: Float[Tensor, "*n c h w"]) -> UInt8[Tensor, "*n c h w"]:
    """Clip intensities to [0, 1] and round them to 8 bits."""
    return (frames.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)


def luma(frames: UInt8[Tensor, "*n 3 h w"]) -> Float64[Tensor, "*n 1 h w"]:
    """Return Y of BT.601, from 16 for black to 235 for white, not rounded."""
    weights = torch.tensor(LUMA, dtype=torch.float64, device=frames.device) / 255
    return 16 + torch.einsum("... c h w, c -> ... h w", frames.double(), weights).unsqueeze(-3)


def psnr(restored: Any, sharp: Any) -> Float64[Tensor, "*n"]:
    """Return the peak signal-to-noise ratio of each frame in dB.

    Frames of one shape, in any form that `vrtspike.metrics.pairs` takes.
    """
    one, other = checked_pair(restored, sharp)
    error = (one - other).square().mean(dim=(-3, -2, -1))
    return 10 * torch.log10(255.0**2 / error)


def ssim(restored: Any, sharp: Any) -> Float64[Tensor, "*n"]:
    """Return the structural similarity of each frame; takes what `psnr` takes.

    Raises DataFormatError below 11x11 pixels.
    """
    return structural_similarity(*checked_pair(restored, sharp), data_range=255.0)


def tdiff(
    restored_before: UInt8[Tensor, "*n c h w"],
    restored: UInt8[Tensor, "*n c h w"],
    sharp_before: UInt8[Tensor, "*n c h w"],
    sharp: UInt8[Tensor, "*n c h w"],
) -> Float64[Tensor, "*n"]:
    """Return the mean difference, in gray levels, between the changes of both videos.

    The change of a video is from the frame before to the present frame.
    """
    restored_change = restored.short() - restored_before.short()
    sharp_change = sharp.short() - sharp_before.short()
    return (restored_change - sharp_change).abs().double().mean(dim=(-3, -2, -1))


def structural_similarity(
    x: Float[Tensor, "*n c h w"], y: Float[Tensor, "*n c h w"], *, data_range: float = 1.0
) -> Float[Tensor, "*n"]:
    """Return the structural similarity of each frame; it is differentiable.

    `data_range` is the value of white. Raise DataFormatError for frames below 11x11 pixels.
    """
    height, width = x.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise DataFormatError(
            "frames are smaller than the window of SSIM",
            got=f"{height}x{width}",
            expected=f"at least {SSIM_WINDOW}x{SSIM_WINDOW}",
        )
    mean_x, mean_y, xx, yy, xy = _smooth(torch.stack([x, y, x * x, y * y, x * y]))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    variances = (xx - mean_x.square()) + (yy - mean_y.square())
    structure = (2 * (xy - mean_x * mean_y) + c2) / (variances + c2)
    similarity: Tensor = (luminance * structure).mean(dim=(-3, -2, -1))
    return similarity


def _smooth(planes: Tensor) -> Tensor:
    """Blur with the Gaussian window along both axes; borders where it does not fit are left out.

    It sums shifted copies, which on a CPU in float64 is eight times faster than a convolution.
    """
    at = [i - (SSIM_WINDOW - 1) / 2 for i in range(SSIM_WINDOW)]
    weights = [math.exp(-0.5 * (x / SSIM_SIGMA) ** 2) for x in at]
    for axis in (-2, -1):
        length = planes.shape[axis] - SSIM_WINDOW + 1
        total = torch.zeros_like(planes.narrow(axis, 0, length))
        for i, weight in enumerate(weights):
            shifted = planes.narrow(axis, i, length)
            total = torch.add(total, shifted, alpha=weight / sum(weights))
        planes = total
    return planes
