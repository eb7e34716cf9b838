"""How fast a bit-packed stream becomes voxels, beside plain code and beside reading its bytes.

In: a `.dat` stream, mapped. Out: the seconds and bits a second of each way, timed in turns; the
least of several passes. All that count give the same counts, which is checked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from vrtspike.spikes.stream import SpikeStream
from vrtspike.spikes.voxels import voxelize_stream

FEW = 2
"""Passes of the naive ways, which take long."""


@dataclass(frozen=True)
class Way:
    """One way through a whole stream."""

    name: str
    seconds: float
    bits_s: float
    over_voxelize: float
    """Its seconds over those of `voxelize_stream`."""


def add_at_steps(spikes: Bool[np.ndarray, "s h w"], bins: int) -> Int[np.ndarray, "k h w"]:
    """Count spikes in bins: add each step to its bin, straight from the definition."""
    steps = len(spikes)
    counts = np.zeros((bins, *spikes.shape[1:]), np.int64)
    np.add.at(counts, np.arange(steps) * bins // steps, spikes)
    return counts


def add_at_spikes(spikes: Bool[np.ndarray, "s h w"], bins: int) -> Int[np.ndarray, "k h w"]:
    """Count spikes in bins: add 1 for each spike, as is usual for the events of an event camera."""
    steps = len(spikes)
    counts = np.zeros((bins, *spikes.shape[1:]), np.int64)
    step, row, column = np.nonzero(spikes)
    np.add.at(counts, (step * bins // steps, row, column), 1)
    return counts


def measure_voxelization(stream: SpikeStream, bins: int, repeats: int) -> list[Way]:
    """Time every way through a stream, from its packed bytes."""
    packed: NDArray[np.uint8] = np.array(stream.packed)  # read once: no way waits for the disk
    words = packed.reshape(-1)[: packed.size // 8 * 8].view(np.uint64)
    counting: dict[str, Callable[[], object]] = {
        "voxelize_stream": lambda: voxelize_stream(stream, bins),
        "np.add.at, each step": lambda: add_at_steps(stream[:], bins),
        "np.add.at, each spike": lambda: add_at_spikes(stream[:], bins),
    }
    reading: dict[str, Callable[[], object]] = {
        "read the packed bytes": lambda: np.bitwise_xor.reduce(words),
        "np.unpackbits": lambda: np.unpackbits(packed),
    }
    counts = [np.asarray(way()) for way in counting.values()]
    for way in reading.values():
        way()
    assert all(np.array_equal(counts[0], other) for other in counts[1:])
    seconds = _fastest(counting | reading, repeats)
    pixels, ours = len(stream) * stream.height * stream.width, seconds["voxelize_stream"]
    return [Way(name, took, pixels / took, took / ours) for name, took in seconds.items()]


def _fastest(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Go through all ways in turns; return the least seconds of each."""
    fastest: dict[str, float] = {}
    for turn in range(repeats):
        for name, way in ways.items():
            if turn < FEW or not name.startswith("np.add.at"):
                start = time.perf_counter()
                way()
                took = time.perf_counter() - start
                fastest[name] = min(took, fastest.get(name, took))
    return fastest
