"""What programs give a `Restorer`: frames and spikes in memory, checked and in one form.

In: frames `(t, h, w, 3)`, uint8 or floats in [0, 1], and spikes `(t, s, hs, ws)` of 0 and 1, as
NumPy arrays, torch tensors or lists, of any strides. Out: a tensor, and a bool array. Any other
shape, type or range is refused, for nothing says what was meant.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Shaped
from numpy.typing import NDArray
from torch import Tensor

from vrtspike.errors import ConfigError, DataFormatError


def checked_frames(blurred: Any) -> Shaped[Tensor, "t h w 3"]:
    """Return frames as a tensor: uint8, or float32 in [0, 1]."""
    frames = _array(blurred, "frames")
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise DataFormatError(
            "frames must be (t, h, w, 3)",
            got=f"an array of shape {frames.shape}",
            fix="repeat gray three times along a last axis, and move channels there",
        )
    if frames.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(frames))
    low, high = float(frames.min()), float(frames.max())
    if frames.dtype.kind == "f" and 0 <= low <= high <= 1:
        return torch.from_numpy(np.ascontiguousarray(frames, np.float32))
    raise DataFormatError(
        "frames must be uint8, or floats in [0, 1]",
        got=f"{frames.dtype} from {low:g} to {high:g}",
        fix="divide by the value of white (255 or 65535), or convert to uint8",
    )


def checked_spikes(spikes: Any, frames: int, size: tuple[int, int]) -> Bool[np.ndarray, "t s h w"]:
    """Return spikes as bool, on a grid that fits frames of some size."""
    found = _array(spikes, "spikes")
    if found.ndim != 4 or len(found) != frames or 0 in found.shape:
        raise DataFormatError(
            "spikes must be (t, s, hs, ws), the steps of each frame",
            got=f"an array of shape {found.shape}",
            expected=f"spikes of {frames} frames",
        )
    rows, columns = found.shape[2:]
    scale = size[0] // rows
    if (rows * scale, columns * scale) != size:
        raise DataFormatError(
            "the spike grid is no whole number of times coarser than the frames",
            got=f"spikes of {rows}x{columns} and frames of {size[0]}x{size[1]}",
            fix="exchange its rows and columns, or register the spikes to the frames",
        )
    if found.dtype != np.bool_ and not ((found == 0) | (found == 1)).all():
        raise DataFormatError(
            "spikes must be 0 or 1", got=f"{found.dtype} from {found.min():g} to {found.max():g}"
        )
    return np.ascontiguousarray(found, np.bool_)


def checked_threshold(threshold: float) -> float:
    """Refuse a threshold that no camera has."""
    if not (math.isfinite(threshold) and threshold > 0):
        raise ConfigError("the threshold must be positive and finite", got=threshold)
    return threshold


def _array(values: Any, what: str) -> NDArray[Any]:
    """Return an array of numbers."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    try:
        found = np.asarray(values)
    except ValueError as error:
        raise DataFormatError(f"{what} of different shapes", got=type(values).__name__) from error
    if found.dtype.kind not in "biuf":
        raise DataFormatError(f"{what} must be numbers", got=f"values of type {found.dtype}")
    return found
