"""Inter-spike intervals of a stream: their figures, and their histogram.

In: a `SpikeStream`, read once from front to back in bounded memory. Out: `IntervalFigures`. An
interval is the number of steps from a spike of a pixel to its next one; light at
intensity I gives intervals of about threshold / I steps. So the shortest interval of a bright scene
is the threshold, and the highest rate its inverse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from vrtspike.spikes.stream import SpikeStream

BARS = 96
SHOWN_SHARE = 0.99
"""The axis ends where this share of the intervals is shown; the last bar holds the rest."""


@dataclass(frozen=True, eq=False)
class IntervalFigures:
    """What the spikes of a stream say of its rates and intervals.

    `mean_rate`: spikes a pixel and step. `highest_rate`: of any pixel. `never_fired`: share of the
    pixels. `mean_isi`, `shortest_isi`: steps; None where no pixel fired twice. `isi_cv`: standard
    deviation / mean of all intervals together, which the scene's contrast sets. `pixel_isi_cv`: the
    same for each pixel that has two intervals, the median of them, which noise and motion set.
    `histogram[i]`: how many intervals of i steps there are.
    """

    steps: int
    mean_rate: float
    highest_rate: float
    never_fired: float
    mean_isi: float | None
    shortest_isi: int | None
    isi_cv: float | None
    pixel_isi_cv: float | None
    histogram: Int[np.ndarray, " n"]

    def facts(self) -> dict[str, float | int | None]:
        """Return the figures without the histogram, for a machine-readable result."""
        return {name: value for name, value in vars(self).items() if name != "histogram"}


def measure_intervals(stream: SpikeStream) -> IntervalFigures:
    """Go through a stream once and count its intervals."""
    steps, height, width = stream.shape
    first = np.full(height * width, -1, np.int64)
    last, count = first.copy(), np.zeros_like(first)
    squares = np.zeros_like(first)
    histogram = np.zeros(steps + 1, np.int64)
    for start, piece in stream.pieces():
        for step, spikes in enumerate(piece.reshape(len(piece), -1), start):
            fired = np.flatnonzero(spikes)
            previous = last[fired]
            again = previous >= 0
            intervals = step - previous[again]
            found = np.bincount(intervals)
            histogram[: len(found)] += found
            squares[fired[again]] += intervals * intervals
            first[fired[~again]] = step
            last[fired] = step
            count[fired] += 1
    total = int(histogram.sum())
    lengths = np.arange(steps + 1)
    mean = float(lengths @ histogram) / total if total else None
    cv = None
    if mean is not None:
        mean_square = float((lengths * lengths) @ histogram) / total
        cv = math.sqrt(max(mean_square - mean**2, 0.0)) / mean
    return IntervalFigures(
        steps=steps,
        mean_rate=float(count.mean() / steps),
        highest_rate=float(count.max() / steps),
        never_fired=float((count == 0).mean()),
        mean_isi=mean,
        shortest_isi=int(np.flatnonzero(histogram)[0]) if total else None,
        isi_cv=cv,
        pixel_isi_cv=_pixel_cv(first, last, count, squares),
        histogram=histogram,
    )


def histogram_bars(histogram: Int[np.ndarray, " n"]) -> tuple[int, np.ndarray]:
    """Return how many interval lengths a bar holds, and each bar's share; the last holds the rest.

    Bar b holds the lengths from 1 + b * size on.
    """
    below = np.cumsum(histogram) / histogram.sum()
    longest = max(int(np.searchsorted(below, SHOWN_SHARE)), 8)
    size = -(-longest // BARS)
    bars = -(-longest // size)
    lengths = np.arange(1, len(histogram))
    bar = np.minimum((lengths - 1) // size, bars)
    shares = np.bincount(bar, histogram[1:], bars + 1) / histogram.sum()
    return size, shares


def _pixel_cv(
    first: Int[np.ndarray, " p"],
    last: Int[np.ndarray, " p"],
    count: Int[np.ndarray, " p"],
    squares: Int[np.ndarray, " p"],
) -> float | None:
    """Return the median over pixels of the variation of their intervals."""
    several = count >= 3
    if not several.any():
        return None
    # A pixel's intervals add up to the time from its first spike to its last.
    intervals = count[several] - 1
    mean = (last - first)[several] / intervals
    variance = np.maximum(squares[several] / intervals - mean**2, 0)
    return float(np.median(np.sqrt(variance) / mean))
