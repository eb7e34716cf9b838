"""Turn spikes into voxel grids: counts of spikes in k bins of a window.

    bin(s) = floor((s - s0) / (s1 - s0) * k)        for the steps s of the half-open [s0, s1)

Steps outside the window are dropped, never folded into the edge bins. Bins hold different numbers
of steps when k does not divide the window (`bin_steps`). What a model sees of the counts is made by
`vrtspike.spikes.representation`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped
from numpy.typing import NDArray

from vrtspike.errors import ConfigError
from vrtspike.spikes.packed_file import PackedSource
from vrtspike.spikes.stream import SpikeStream


def bin_steps(steps: int, bins: int) -> Int[np.ndarray, " k"]:
    """Return the number of steps in each bin of a window of `steps` steps."""
    return np.diff(bin_edges(steps, bins))


def voxelize(
    spikes: Shaped[np.ndarray, "s h w"], bins: int, *, start: int = 0, stop: int | None = None
) -> Shaped[np.ndarray, "k h w"]:
    """Count the spikes (bool, or uint8 of 0 and 1) of the steps `[start, stop)` in bins.

    Counts are uint8, or uint16 if a bin has more than 255 steps. Raises ConfigError if the window
    leaves the stream or has fewer steps than bins.
    """
    if spikes.dtype not in (np.bool_, np.uint8):
        raise ConfigError("spikes must be bool or uint8", got=spikes.dtype)
    edges = _window(len(spikes), bins, start, stop)
    counts = _empty_counts(edges, *spikes.shape[1:])
    values = spikes.view(np.uint8)
    for k, (a, b) in enumerate(pairwise(edges.tolist())):
        add_up(values[a:b], counts[k])
    return counts


def voxelize_stream(
    stream: SpikeStream, bins: int, *, start: int = 0, stop: int | None = None
) -> Shaped[np.ndarray, "k h w"]:
    """Count the spikes of the steps `[start, stop)` of a stream in bins.

    Counts are uint8, or uint16 when a bin holds more than 255 steps. No more than a bin's spikes
    are in memory.
    """
    edges = _window(len(stream), bins, start, stop)
    counts = _empty_counts(edges, stream.height, stream.width)
    stored, bottom_up = _as_stored(stream)
    total = np.empty_like(counts[0])
    for k, (a, b) in enumerate(pairwise(edges.tolist())):
        for first, piece in stored.pieces(a, b):
            add_up(piece.view(np.uint8), total, onto=first > a)
        # Flipping each sum is cheaper than flipping every step.
        counts[k] = total[::-1] if bottom_up else total
    return counts


def _window(length: int, bins: int, start: int, stop: int | None) -> NDArray[np.int64]:
    """Return the edges of the bins of a window, in steps of a stream of `length` steps."""
    stop = length if stop is None else stop
    if not 0 <= start < stop <= length:
        raise ConfigError(
            "the window is empty or leaves the stream",
            got=f"[{start}, {stop})",
            expected=f"0 <= start < stop <= {length}",
        )
    return bin_edges(stop - start, bins) + start


def _empty_counts(edges: NDArray[np.int64], height: int, width: int) -> NDArray[Any]:
    dtype = np.uint8 if np.diff(edges).max() <= 255 else np.uint16
    return np.empty((len(edges) - 1, height, width), dtype)


def add_up(steps: NDArray[np.uint8], total: NDArray[Any], *, onto: bool = False) -> None:
    """Write the sum of steps `(s, h, w)` into `total` `(h, w)`; with `onto`, add it to `total`."""
    if onto:
        np.add(total, steps[0], out=total)
    elif len(steps) == 1:
        total[...] = steps[0]
    else:
        np.add(steps[0], steps[1], out=total, dtype=total.dtype)
    for step in steps[1:] if onto else steps[2:]:
        np.add(total, step, out=total)


def _as_stored(stream: SpikeStream) -> tuple[SpikeStream, bool]:
    """Return a bit-packed stream in its stored order of rows, and whether that is bottom-up."""
    source, box = stream.source, stream.box
    if not isinstance(source, PackedSource) or not source.flip:
        return stream, False
    top = source.shape[1] - box.top - box.height
    return replace(stream, source=replace(source, flip=False), box=box._replace(top=top)), True


def bin_edges(steps: int, bins: int) -> NDArray[np.int64]:
    """Return the edges of the half-open bins of a window, `(k + 1,)` int64.

    Edge j is the smallest s with s * k >= j * steps. Raises ConfigError if there are fewer steps
    than bins.
    """
    if not 1 <= bins <= steps:
        raise ConfigError(
            "bins must hold one step each at least",
            got=f"{bins} bins over {steps} steps",
            fix="lower model.spike.bins or widen the exposure",
        )
    return -(-np.arange(bins + 1, dtype=np.int64) * steps // bins)
