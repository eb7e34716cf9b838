"""Spikes to voxel grids: counts of spikes in k bins of a window.

    bin(s) = floor((s - s0) / (s1 - s0) * k)        for the steps s of the half-open [s0, s1)

Steps outside the window are dropped, never folded into the edge bins. Bins hold different numbers
of steps when k does not divide the window (`bin_steps`); normalising by them (mode `rate`) removes
that pattern, and the threshold with it: count / steps * threshold estimates the intensity in
[0, 1]. Mode `log1p` is log(1 + count), which does neither; it exists for models trained so.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Union, overload

import numpy as np
from jaxtyping import Int, Shaped
from numpy.typing import NDArray

from vrtspike.errors import ConfigError

if TYPE_CHECKING:
    # Not at run time: the tasks that only count spikes should not wait for torch.
    import torch

Mode = Literal["rate", "log1p"]


def bin_steps(steps: int, bins: int) -> Int[np.ndarray, " k"]:
    """Return how many of `steps` steps each of `bins` bins holds."""
    return np.diff(_edges(steps, bins))


def voxelize(
    spikes: Shaped[np.ndarray, "s h w"], bins: int, *, start: int = 0, stop: int | None = None
) -> Shaped[np.ndarray, "k h w"]:
    """Count the spikes (bool or uint8 of 0 and 1) of the steps `[start, stop)` in bins.

    Counts are uint8, or uint16 when a bin holds more than 255 steps.
    """
    if spikes.dtype not in (np.bool_, np.uint8):
        raise ConfigError("spikes must be bool or uint8", got=spikes.dtype)
    stop = len(spikes) if stop is None else stop
    if not 0 <= start < stop <= len(spikes):
        raise ConfigError(
            "the window is empty or leaves the stream",
            got=f"[{start}, {stop})",
            expected=f"0 <= start < stop <= {len(spikes)}",
        )
    edges = _edges(stop - start, bins) + start
    dtype = np.uint8 if np.diff(edges).max() <= 255 else np.uint16
    values = spikes.view(np.uint8)
    counts = np.empty((bins, *spikes.shape[1:]), dtype)
    for k, (a, b) in enumerate(pairwise(edges)):
        if b - a == 1:
            counts[k] = values[a]
        else:
            np.add(values[a], values[a + 1], out=counts[k], dtype=dtype)
            for s in range(a + 2, b):
                counts[k] += values[s]
    return counts


@overload
def normalize_voxels(
    counts: NDArray[Any], steps: NDArray[Any], threshold: float, mode: Mode
) -> NDArray[np.float32]: ...
@overload
def normalize_voxels(
    counts: "torch.Tensor", steps: NDArray[Any], threshold: float, mode: Mode
) -> "torch.Tensor": ...
def normalize_voxels(
    counts: Union[NDArray[Any], "torch.Tensor"],  # noqa: UP007
    steps: NDArray[Any],
    threshold: float,
    mode: Mode,
) -> Union[NDArray[np.float32], "torch.Tensor"]:  # noqa: UP007
    """Turn counts `(..., k, h, w)` into float32 voxels; `steps` is `bin_steps` of their window."""
    if counts.shape[-3] != len(steps):
        raise ConfigError(
            "counts and steps disagree on the bins", got=counts.shape[-3], expected=len(steps)
        )
    if mode not in ("rate", "log1p"):
        raise ConfigError("unknown voxel normalisation", got=mode, expected="rate or log1p")
    scale = (threshold / steps).astype(np.float32)[:, None, None]
    if isinstance(counts, np.ndarray):
        floats: NDArray[np.float32] = counts.astype(np.float32)
        return np.log1p(floats) if mode == "log1p" else floats * scale
    values = counts.float()
    return values.log1p() if mode == "log1p" else values * values.new_tensor(scale)


def _edges(steps: int, bins: int) -> NDArray[np.int64]:
    """Return the first step of each bin, and the end: the least s with s * k >= j * steps."""
    if not 1 <= bins <= steps:
        raise ConfigError(
            "bins must hold one step each at least",
            got=f"{bins} bins over {steps} steps",
            fix="lower model.spike.bins or widen the exposure",
        )
    return -(-np.arange(bins + 1, dtype=np.int64) * steps // bins)
