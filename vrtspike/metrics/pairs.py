"""What programs give to the metrics: two sets of frames of one shape, in one range.

In: torch tensors `(..., c, h, w)` or NumPy arrays `(..., h, w, c)` (or channels first), each uint8,
floats in [0, 1], or luma in [16, 235]. Out: two float64 tensors `(..., c, h, w)` in 0 to 255.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from vrtspike.errors import DataFormatError

CHANNELS = (1, 3)
LUMA_RANGE = (16.0, 235.0)
SLACK = 1e-6


def checked_pair(
    restored: Any, sharp: Any
) -> tuple[Float64[Tensor, "*n c h w"], Float64[Tensor, "*n c h w"]]:
    """Return both in one form; other shapes than each other's, and other ranges, are refused."""
    a, b = _checked(restored, "restored"), _checked(sharp, "sharp")
    if a.shape != b.shape:
        raise DataFormatError(
            "frames that are compared must be of one shape",
            got=f"restored {tuple(a.shape)}, sharp {tuple(b.shape)}",
            fix="give as many frames, of one size, on both sides",
        )
    return a, b


def _checked(frames: Any, what: str) -> Float64[Tensor, "*n c h w"]:
    """Return frames in 0 to 255."""
    if isinstance(frames, np.ndarray):
        if frames.ndim >= 3 and frames.shape[-1] in CHANNELS:
            frames = np.moveaxis(frames, -1, -3)
        frames = torch.from_numpy(np.ascontiguousarray(frames))
    if not isinstance(frames, Tensor):
        raise DataFormatError(
            f"{what} frames must be a tensor or an array", got=type(frames).__name__
        )
    if frames.ndim < 3 or frames.shape[-3] not in CHANNELS or not frames.numel():
        raise DataFormatError(
            f"{what} frames must be (..., c, h, w) with 1 or 3 channels",
            got=f"shape {tuple(frames.shape)}",
            fix="move the channels before rows and columns: frames.permute(..., 2, 0, 1)",
        )
    if frames.dtype == torch.uint8:
        return frames.double()
    found = frames.detach().double()
    low, high = found.min().item(), found.max().item()
    if frames.is_floating_point() and 0 <= low <= high <= 1:
        return found * 255
    is_luma = frames.is_floating_point() and frames.shape[-3] == 1
    if is_luma and LUMA_RANGE[0] - SLACK <= low <= high <= LUMA_RANGE[1] + SLACK:
        return found
    raise DataFormatError(
        f"{what} frames must be uint8, or floats in [0, 1]",
        got=f"{str(frames.dtype).removeprefix('torch.')} from {low:g} to {high:g}",
        fix="round them to uint8, or bring them to [0, 1]",
    )
