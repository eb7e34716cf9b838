"""The order of training samples and the seeds of their random draws, as pure functions.

The stream of samples is an endless concatenation of epochs. Each epoch is a permutation of the
`count` samples, drawn from (seed, epoch). Optimiser step i (from 0) takes positions [i * batch,
(i + 1) * batch) of the stream, for any number of workers. A step may reach into the next epoch, so
each epoch has every sample exactly once. Inside a step, the positions are cut into groups of
`samples`, which go to the ranks of the first micro-batch, then to those of the next. So a training
that continues at step i, with any number of ranks, uses the same samples as without the
interruption.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ORDER, _SAMPLE, _SPIKES = 1, 2, 3
"""Parts of seeds that make the draws of the order, of a sample and of its spikes independent."""


@dataclass(frozen=True)
class StepLayout:
    """How the `batch` samples of a step are divided over `ranks`, in groups of `samples`.

    `samples` divides `batch`. If the number of groups is not a multiple of the ranks, some ranks
    have no group in the last micro-batch. They compute the last group of the step again, and it
    does not count for them.
    """

    batch: int
    samples: int
    ranks: int

    @property
    def runs(self) -> int:
        """Return the number of groups of samples in a step."""
        return self.batch // self.samples

    @property
    def accumulation(self) -> int:
        """Return the number of micro-batches in a step."""
        return -(-self.runs // self.ranks)

    def counts(self, micro: int, rank: int) -> bool:
        """Return whether micro-batch `micro` (from 0) of a step counts for this rank."""
        return micro * self.ranks + rank < self.runs


@dataclass(frozen=True)
class Draw:
    """One sample of the stream: its index among all samples, and its epoch."""

    epoch: int
    index: int
    step: int = field(default=0, compare=False)
    """Optimiser step that uses the sample."""


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return the read-only permutation of `count` samples in an epoch."""
    order = np.random.default_rng((seed, _ORDER, epoch)).permutation(count)
    order.setflags(write=False)
    return order


def micro_batch(
    seed: int, count: int, layout: StepLayout, number: int, rank: int
) -> tuple[Draw, ...]:
    """Return the samples of a rank in micro-batch `number` = step * accumulation + micro."""
    step, micro = divmod(number, layout.accumulation)
    group = min(micro * layout.ranks + rank, layout.runs - 1)
    first = step * layout.batch + group * layout.samples
    draws = []
    for position in range(first, first + layout.samples):
        epoch, index = divmod(position, count)
        draws.append(Draw(epoch, int(epoch_order(seed, epoch, count)[index]), step))
    return tuple(draws)


def sample_rng(seed: int, draw: Draw) -> np.random.Generator:
    """Return the generator for the crop and flips of a sample in its epoch."""
    return np.random.default_rng((seed, _SAMPLE, draw.epoch, draw.index))


def spike_rng(seed: int, draw: Draw) -> np.random.Generator:
    """Return the generator for changes of a sample's spikes, which does not affect its frames."""
    return np.random.default_rng((seed, _SPIKES, draw.epoch, draw.index))
