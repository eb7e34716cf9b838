"""Which sample is trained on when, and with which random draws: pure functions, no state.

The stream of samples is an endless concatenation of epochs, each a permutation of the `count`
samples drawn from (seed, epoch). Optimiser step i (from 0) takes positions [i * batch,
(i + 1) * batch) of the stream, whatever the number of workers is; a step may reach into the next
epoch, so that every sample is seen exactly once in each. Inside a step the positions go, in runs of
`samples`, to the ranks of the first micro-batch, then to those of the next. A run that is continued
at step i, by any number of ranks, therefore trains on exactly what it would have trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ORDER, _SAMPLE, _SPIKES = 1, 2, 3
"""Keep the draws of the order, of a sample, and of its spikes alone apart."""


@dataclass(frozen=True)
class Share:
    """How the samples of a step are divided over `ranks`, in runs of `samples` (which divide it).

    Where the runs do not divide by the ranks, some ranks have none left in the last micro-batch:
    they repeat the step's last run, which does not count for them.
    """

    batch: int
    samples: int
    ranks: int

    @property
    def runs(self) -> int:
        """Return the runs of a step."""
        return self.batch // self.samples

    @property
    def accumulation(self) -> int:
        """Return the micro-batches of a step."""
        return -(-self.runs // self.ranks)

    def counts(self, micro: int, rank: int) -> bool:
        """Tell whether micro-batch `micro` of a step (from 0) holds samples of the rank's own."""
        return micro * self.ranks + rank < self.runs


@dataclass(frozen=True)
class Draw:
    """One sample of the stream: its index among all samples, and the epoch it is seen in."""

    epoch: int
    index: int
    step: int = field(default=0, compare=False)
    """The optimiser step that it is drawn for."""


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return the permutation of `count` samples in an epoch; do not change it."""
    order = np.random.default_rng((seed, _ORDER, epoch)).permutation(count)
    order.setflags(write=False)
    return order


def micro_batch(seed: int, count: int, share: Share, number: int, rank: int) -> tuple[Draw, ...]:
    """Return what a rank trains on in micro-batch `number` = step * accumulation + micro."""
    step, micro = divmod(number, share.accumulation)
    run = min(micro * share.ranks + rank, share.runs - 1)
    first = step * share.batch + run * share.samples
    draws = []
    for position in range(first, first + share.samples):
        epoch, place = divmod(position, count)
        draws.append(Draw(epoch, int(epoch_order(seed, epoch, count)[place]), step))
    return tuple(draws)


def sample_rng(seed: int, draw: Draw) -> np.random.Generator:
    """Return the generator of every random choice about a sample in its epoch."""
    return np.random.default_rng((seed, _SAMPLE, draw.epoch, draw.index))


def spike_rng(seed: int, draw: Draw) -> np.random.Generator:
    """Return the generator of the choices about a sample's spikes; frames do not depend on it."""
    return np.random.default_rng((seed, _SPIKES, draw.epoch, draw.index))
