"""Which sample is trained on when, and with which random draws: pure functions, no state.

The stream of samples is an endless concatenation of epochs, each a permutation of the `count`
samples drawn from (seed, epoch). Optimiser step i (from 0) takes positions [i * batch,
(i + 1) * batch) of the stream, whatever the number of workers is; a step may reach into the next
epoch, so that every sample is seen exactly once in each. Inside a step the positions go to
micro-batches, and inside a micro-batch to ranks, in runs of equal length. A run that is continued
at step i therefore trains on exactly what it would have trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ORDER, _SAMPLE, _SPIKES = 1, 2, 3
"""Keep the draws of the order, of a sample, and of its spikes alone apart."""


@dataclass(frozen=True)
class Share:
    """How a step's samples are divided: `batch` = ranks x micro-batches x samples of each."""

    batch: int
    accumulation: int
    workers: int

    @property
    def samples(self) -> int:
        """Return the samples of one micro-batch of one rank."""
        return self.batch // (self.accumulation * self.workers)


@dataclass(frozen=True)
class Draw:
    """One sample of the stream: its index among all samples, and the epoch it is seen in."""

    epoch: int
    index: int


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return the permutation of `count` samples in an epoch; do not change it."""
    order = np.random.default_rng((seed, _ORDER, epoch)).permutation(count)
    order.setflags(write=False)
    return order


def micro_batch(seed: int, count: int, share: Share, number: int, rank: int) -> tuple[Draw, ...]:
    """Return what a rank trains on in micro-batch `number` = step * accumulation + micro."""
    step, micro = divmod(number, share.accumulation)
    first = step * share.batch + (micro * share.workers + rank) * share.samples
    draws = []
    for position in range(first, first + share.samples):
        epoch, place = divmod(position, count)
        draws.append(Draw(epoch, int(epoch_order(seed, epoch, count)[place])))
    return tuple(draws)


def sample_rng(seed: int, draw: Draw) -> np.random.Generator:
    """Return the generator of every random choice about a sample in its epoch."""
    return np.random.default_rng((seed, _SAMPLE, draw.epoch, draw.index))


def spike_rng(seed: int, draw: Draw) -> np.random.Generator:
    """Return the generator of the choices about a sample's spikes; frames do not depend on it."""
    return np.random.default_rng((seed, _SPIKES, draw.epoch, draw.index))
