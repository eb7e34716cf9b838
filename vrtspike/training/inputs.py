"""The training inputs of one rank: its stream of micro-batches, and the names of samples."""

from __future__ import annotations

from vrtspike.samples.order import StepLayout, micro_batch
from vrtspike.samples.stream import MicroBatches, Stream
from vrtspike.training.task import Task

NAMED = 8
"""Most sample names in a message."""


class Inputs:
    """The samples of a task, shared between `ranks` processes."""

    def __init__(self, task: Task, rank: int, ranks: int) -> None:
        self._task, self._rank = task, rank
        train = task.config.train
        self.layout = StepLayout(train.batch, train.micro_batch, ranks)

    def micro_batches(self, done: int, steps: int | None, cpus: float) -> MicroBatches:
        """Open this rank's stream of micro-batches, from step `done` to step `steps`.

        Its data tasks use `cpus` CPUs. If `steps` is None, the stream has no end until `end_at`
        sets one.
        """
        task, split = self._task, self._task.config.data.train_split
        stream = Stream(task.reader(split), task.samples(split), self.layout, self._rank)
        each = self.layout.accumulation
        return MicroBatches(stream, done * each, None if steps is None else steps * each, cpus=cpus)

    def end_at(self, batches: MicroBatches, steps: int) -> None:
        """End a stream after step `steps` of the run."""
        batches.end_at(steps * self.layout.accumulation)

    def names(self, step: int) -> str:
        """Return the names of the samples of a step, over all ranks."""
        config, split = self._task.config, self._task.config.data.train_split
        batch = config.train.batch
        layout = StepLayout(batch, batch, 1)
        draws = micro_batch(config.run.seed, self._task.samples(split), layout, step, 0)
        more = f" and {len(draws) - NAMED} more" if len(draws) > NAMED else ""
        return ", ".join(self._task.name(split, draw.index) for draw in draws[:NAMED]) + more
