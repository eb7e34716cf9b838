"""Voxels straight from their definition, to compare with: counts of spikes in bins of a window."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


def voxelize(
    spikes: NDArray[Any], bins: int, *, start: int = 0, stop: int | None = None
) -> NDArray[np.int64]:
    """Count spikes `(s, h, w)` of the steps `[start, stop)` step by step: `(k, h, w)`."""
    stop = len(spikes) if stop is None else stop
    counts = np.zeros((bins, *spikes.shape[1:]), np.int64)
    for step in range(start, stop):
        counts[(step - start) * bins // (stop - start)] += spikes[step]
    return counts


def normalize_voxels(
    counts: NDArray[np.int64],
    steps: NDArray[Any],
    threshold: float,
    mode: Literal["rate", "log1p"],
) -> NDArray[np.float32]:
    """Turn counts `(..., k, h, w)`, of bins of so many steps, into what a model sees of them."""
    values = counts.astype(np.float32)
    if mode == "log1p":
        return np.log1p(values)
    scale: NDArray[np.float32] = (threshold / steps[:, None, None]).astype(np.float32)
    return values * scale
