"""What one rank trains on: its stream of micro-batches, and the names of samples."""

from __future__ import annotations

from vrtspike.data.order import Share, micro_batch
from vrtspike.data.pipeline import MicroBatches, Stream
from vrtspike.training.task import Task

NAMED = 8
"""Most samples that a message names."""


class Inputs:
    """A task's samples as `ranks` share them."""

    def __init__(self, task: Task, rank: int, ranks: int) -> None:
        self._task, self._rank = task, rank
        train = task.config.train
        self.share = Share(train.batch, train.micro_batch, ranks)

    def micro_batches(self, done: int, cpus: float) -> MicroBatches:
        """Open this rank's stream after `done` steps; its tasks use so many CPUs."""
        task, split = self._task, self._task.config.data.train_split
        stream = Stream(task.reader(split), task.samples(split), self.share, self._rank)
        steps = task.config.train.steps
        first, end = (count * self.share.accumulation for count in (done, steps))
        return MicroBatches(stream, first, end, cpus=cpus)

    def names(self, step: int) -> str:
        """Name the samples of a step, those of all ranks."""
        config, split = self._task.config, self._task.config.data.train_split
        batch = config.train.batch
        share = Share(batch, batch, 1)
        draws = micro_batch(config.run.seed, self._task.samples(split), share, step, 0)
        more = f" and {len(draws) - NAMED} more" if len(draws) > NAMED else ""
        return ", ".join(self._task.name(split, draw.index) for draw in draws[:NAMED]) + more
