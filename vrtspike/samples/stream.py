"""The stream of micro-batches of one rank: Ray Data datasets that run inside its worker.

Ray Data tasks read, crop and voxelize samples on the CPUs that training workers do not use.
`vrtspike.samples.order` decides the content and order of micro-batches. A dataset is a list of
micro-batch numbers, cut into tasks of a few numbers each; Ray keeps the order of their blocks. Each
block is one micro-batch.

One dataset covers a segment of the training that fits into `SEGMENT_BYTES`. A thread starts the
next dataset while the last `AHEAD` micro-batches of the current one wait. We use segments because
the scheduler of Ray Data runs in a thread of this process. While its tasks have more output than it
may read, it polls in a loop and holds Python's lock, which slows training. A segment is made
without a pause, and then its scheduler ends.

The dataset of each rank may use `cpus` CPUs, which training workers must leave free (see
`vrtspike.training.preflight`).
"""

from __future__ import annotations

import itertools
import logging
import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray.data
from numpy.typing import NDArray
from ray.data import DataContext, ExecutionOptions, ExecutionResources
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    ConcurrencyCapBackpressurePolicy,
)
from ray.data.block import Block, BlockAccessor, BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from vrtspike.samples.order import StepLayout, micro_batch
from vrtspike.samples.reader import Reader

MicroBatch = dict[str, NDArray[Any]]

SEGMENT_BYTES = 256 * 2**20
"""Greatest size in bytes of the micro-batches of one dataset."""
SEGMENT = 128
"""Greatest number of micro-batches in one dataset."""
RUN = 16
"""Greatest number of micro-batches in a task. Each task costs the scheduler, which runs in this
process, some milliseconds."""
AHEAD = 4
"""Number of micro-batches that wait in the queue of the worker."""
STOP_SECONDS = 0.2
"""How often, in seconds, the thread that fills a full queue checks whether it should stop."""


@dataclass(frozen=True)
class Stream:
    """The micro-batches of a rank, by number."""

    reader: Reader
    samples: int
    layout: StepLayout
    rank: int

    def make(self, number: int) -> MicroBatch:
        """Read and return micro-batch `number` of this rank."""
        draws = micro_batch(self.reader.seed, self.samples, self.layout, number, self.rank)
        return self.reader.training(draws)


class MicroBatches:
    """Iterate once over micro-batches `[start, stop)` and measure the time spent waiting for them.

    If `stop` is None, the iteration ends where `end_at` says. `cpus` limits the CPUs of tasks.
    """

    def __init__(self, stream: Stream, start: int, stop: int | None, *, cpus: float) -> None:
        self._stream, self._start, self._cpus = stream, start, cpus
        self._stop = sys.maxsize if stop is None else stop
        self._ready: queue.Queue[MicroBatch | Exception] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        self._filler = threading.Thread(target=self._fill, name="micro-batches", daemon=True)
        self.waited = 0.0
        """Seconds that the consumer has waited for micro-batches so far."""

    def start(self) -> None:
        """Start to read the first micro-batches, before the iteration starts."""
        self._filler.start()

    def end_at(self, stop: int) -> None:
        """End the iteration before micro-batch `stop`."""
        self._stop = stop

    def __iter__(self) -> Iterator[MicroBatch]:
        if self._filler.ident is None:
            self.start()
        try:
            for number in itertools.count(self._start):
                if number >= self._stop:
                    break
                started = time.perf_counter()
                batch = self._ready.get()
                self.waited += time.perf_counter() - started
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            self._closed.set()

    def _fill(self) -> None:
        """Run one dataset after another until closed; queue their micro-batches, or their error."""
        first, length = self._start, AHEAD
        try:
            while first < self._stop and not self._closed.is_set():
                numbers = range(first, min(first + length, self._stop))
                for arrays in _dataset(self._stream, numbers, self._cpus):
                    batch = {name: array[0] for name, array in arrays.items()}
                    self._put(batch)
                size = sum(array.nbytes for array in batch.values())
                first, length = numbers.stop, max(1, min(SEGMENT, SEGMENT_BYTES // size))
        except Exception as error:
            self._put(error)

    def _put(self, item: MicroBatch | Exception) -> None:
        while not self._closed.is_set():
            try:
                return self._ready.put(item, timeout=STOP_SECONDS)
            except queue.Full:
                continue


def _dataset(stream: Stream, numbers: range, cpus: float) -> Any:
    """Build the dataset of these micro-batches, and return the iterable over its batches."""
    quiet_ray_data()
    parallel = max(1, int(cpus))
    run = min(RUN, -(-len(numbers) // parallel))
    tasks = -(-len(numbers) // run)
    dataset = ray.data.read_datasource(
        _Numbers(stream, numbers, run),
        override_num_blocks=tasks,
        num_cpus=min(1.0, cpus),
        concurrency=min(tasks, parallel),
    )
    context = dataset.context
    context.execution_options = ExecutionOptions(
        resource_limits=ExecutionResources(cpu=cpus), preserve_order=True
    )
    context.target_max_block_size = 1
    # The size of a segment is already limited, and backpressure would keep the scheduler busy in
    # its loop. Without the other policies, only `concurrency` limits the CPUs.
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [ConcurrencyCapBackpressurePolicy])
    # By default a task pauses after every second block until the scheduler polls it again.
    context._max_num_blocks_in_streaming_gen_buffer = run
    context.enable_progress_bars = False
    return dataset.iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=0)


class _Numbers(Datasource):
    """A Ray Data source whose read tasks each make `run` consecutive micro-batches."""

    def __init__(self, stream: Stream, numbers: range, run: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stream, self._numbers, self._run = stream, numbers, run

    def get_name(self) -> str:
        """Return the name of the operator in Ray's logs and dashboard."""
        return "MicroBatches"

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None, because the size is not known."""
        return None

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """Cut the numbers into tasks; `parallelism` equals their number and is ignored."""
        tasks = []
        for first in range(self._numbers.start, self._numbers.stop, self._run):
            numbers = range(first, min(first + self._run, self._numbers.stop))
            metadata = BlockMetadata(num_rows=len(numbers), size_bytes=None, exec_stats=None)
            tasks.append(ReadTask(partial(_blocks, self._stream, numbers), metadata))
        return tasks


def _blocks(stream: Stream, numbers: range) -> Iterator[Block]:
    """Make micro-batches one by one; each is a block of one row."""
    for number in numbers:
        batch = {name: array[np.newaxis] for name, array in stream.make(number).items()}
        yield BlockAccessor.batch_to_block(batch)


def quiet_ray_data() -> None:
    """Remove the console handler of Ray Data's logger, so that it logs only to its file.

    Also let tasks raise their original exceptions: wrapped ones lose their cause between processes.
    """
    DataContext.get_current().enable_progress_bars = False
    DataContext.get_current().raise_original_map_exception = True
    log = logging.getLogger("ray.data")
    for handler in list(log.handlers):
        if not isinstance(handler, logging.FileHandler) and "File" not in type(handler).__name__:
            log.removeHandler(handler)
