"""The uncertainty of an evaluation: spread over sequences, and gains paired by sequence.

In: the results of an evaluation of n sequences; m_i is the mean over the frames of sequence i. Out:

    Figure   mean over all frames, and the standard deviation of m_i (n - 1 in the denominator)
    Gain     mean of the differences d_i of two methods' m_i, and its standard error s(d) / sqrt(n)

Sequences are independent samples; the frames of a sequence are not, because they show the same
scene. With one sequence, the standard deviation and error are None.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from vrtspike.evaluation.results import Results


@dataclass(frozen=True)
class Figure:
    """The mean of a metric over all frames, and its standard deviation over sequences."""

    mean: float
    spread: float | None


@dataclass(frozen=True)
class Gain:
    """The mean gain of one method over another, paired by sequence, and its standard error."""

    mean: float
    error: float | None


def figure(results: Results, method: str, metric: str) -> Figure | None:
    """Return a metric of a method; None if its frames do not have it."""
    mean = results.over_frames(method).as_dict()[metric]
    if mean is None:
        return None
    means = by_sequence(results, method, metric)
    return Figure(mean, _deviation(list(means.values())))


def gain(results: Results, method: str, over: str, metric: str = "psnr") -> Gain:
    """Return by how much `method` exceeds the method `over` in a metric."""
    ours, theirs = (by_sequence(results, name, metric) for name in (method, over))
    differences = [ours[name] - theirs[name] for name in ours if name in theirs]
    deviation = _deviation(differences)
    error = None if deviation is None else deviation / math.sqrt(len(differences))
    return Gain(statistics.fmean(differences), error)


def by_sequence(results: Results, method: str, metric: str) -> dict[str, float]:
    """Return the mean of a metric for each sequence that has it."""
    means = {
        name: results.over_frames(method, name).as_dict()[metric] for name in results.sequences
    }
    return {name: mean for name, mean in means.items() if mean is not None}


def _deviation(values: list[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
