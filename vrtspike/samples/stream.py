"""The stream of micro-batches of one rank: Ray Data datasets that run inside its worker.

Reading, cropping and voxelizing happen in Ray Data tasks on the CPUs that the workers leave. What
comes out, and in which order, is `vrtspike.samples.order` and nothing else: a dataset is a list of
micro-batch numbers, cut into tasks of a few numbers each whose blocks keep their order. Every block
holds one micro-batch.

One dataset covers a segment of the run that fits into `SEGMENT_BYTES`; a thread starts the next one
while the last `AHEAD` micro-batches of the present one wait. Segments, because Ray Data's scheduler
runs in a thread of this process and spins, with Python's lock, as long as its tasks have made more
than it may read, which slows training. A segment is made in one go, and then its scheduler ends.

Ray Data never sees a whole machine: each rank's dataset may use `cpus` CPUs, which must be free of
training workers (see `vrtspike.training.preflight`).
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

from vrtspike.samples.order import Share, micro_batch
from vrtspike.samples.reader import Reader

MicroBatch = dict[str, NDArray[Any]]

SEGMENT_BYTES = 256 * 2**20
"""Most bytes of the micro-batches of one dataset."""
SEGMENT = 128
"""Most micro-batches of one dataset."""
RUN = 16
"""Most micro-batches of a task: a task costs the scheduler, in this process, some milliseconds."""
AHEAD = 4
"""Micro-batches that wait ready in the worker."""
STOP_SECONDS = 0.2
"""How often the thread that fills the queue looks whether anyone still reads from it."""


@dataclass(frozen=True)
class Stream:
    """Everything that decides a rank's micro-batches."""

    reader: Reader
    samples: int
    share: Share
    rank: int

    def make(self, number: int) -> MicroBatch:
        """Return micro-batch `number` of this rank."""
        draws = micro_batch(self.reader.seed, self.samples, self.share, number, self.rank)
        return self.reader.training(draws)


class MicroBatches:
    """Iterate once over micro-batches `[start, stop)` and count the time spent waiting for them.

    Without `stop` they go on until `end_at` sets it.
    """

    def __init__(self, stream: Stream, start: int, stop: int | None, *, cpus: float) -> None:
        self._stream, self._start, self._cpus = stream, start, cpus
        self._stop = sys.maxsize if stop is None else stop
        self._ready: queue.Queue[MicroBatch | Exception] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        self._filler = threading.Thread(target=self._fill, name="micro-batches", daemon=True)
        self.waited = 0.0
        """Seconds that the consumer has waited so far."""

    def start(self) -> None:
        """Begin to make the first ones, before anyone asks for them."""
        self._filler.start()

    def end_at(self, stop: int) -> None:
        """Yield no micro-batch from this number on."""
        self._stop = stop

    def __iter__(self) -> Iterator[MicroBatch]:
        if self._filler.ident is None:
            self.start()
        try:
            for number in itertools.count(self._start):
                if number >= self._stop:
                    break
                asked = time.perf_counter()
                batch = self._ready.get()
                self.waited += time.perf_counter() - asked
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            self._closed.set()

    def _fill(self) -> None:
        """Run one dataset after another and queue what they make, or their error, until closed."""
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
    """Build the dataset of some micro-batches and return its batches."""
    quiet_ray_data()
    at_once = max(1, int(cpus))
    run = min(RUN, -(-len(numbers) // at_once))
    tasks = -(-len(numbers) // run)
    dataset = ray.data.read_datasource(
        _Numbers(stream, numbers, run),
        override_num_blocks=tasks,
        num_cpus=min(1.0, cpus),
        concurrency=min(tasks, at_once),
    )
    context = dataset.context
    context.execution_options = ExecutionOptions(
        resource_limits=ExecutionResources(cpu=cpus), preserve_order=True
    )
    context.target_max_block_size = 1
    # A segment is bounded as it is; held back, it would keep the scheduler spinning. Without the
    # other policies nothing but `concurrency` bounds the CPUs.
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [ConcurrencyCapBackpressurePolicy])
    # Else a task stops after every second block until the scheduler looks at it again.
    context._max_num_blocks_in_streaming_gen_buffer = run
    context.enable_progress_bars = False
    return dataset.iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=0)


class _Numbers(Datasource):
    """Micro-batch numbers as a source: each read task makes a run of them."""

    def __init__(self, stream: Stream, numbers: range, run: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stream, self._numbers, self._run = stream, numbers, run

    def get_name(self) -> str:
        """Return the operator's name in Ray's logs and dashboard."""
        return "MicroBatches"

    def estimate_inmemory_data_size(self) -> int | None:
        """Return that nothing is known."""
        return None

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """Cut the numbers into tasks; `parallelism` is what they give anyway."""
        tasks = []
        for first in range(self._numbers.start, self._numbers.stop, self._run):
            numbers = range(first, min(first + self._run, self._numbers.stop))
            metadata = BlockMetadata(num_rows=len(numbers), size_bytes=None, exec_stats=None)
            tasks.append(ReadTask(partial(_blocks, self._stream, numbers), metadata))
        return tasks


def _blocks(stream: Stream, numbers: range) -> Iterator[Block]:
    """Make micro-batches one by one, each a block of one row."""
    for number in numbers:
        batch = {name: array[np.newaxis] for name, array in stream.make(number).items()}
        yield BlockAccessor.batch_to_block(batch)


def quiet_ray_data() -> None:
    """Leave Ray Data's log to its file: take its console handler away.

    What a task raises comes here as it was: wrapped, it would lose its cause between processes.
    """
    DataContext.get_current().enable_progress_bars = False
    DataContext.get_current().raise_original_map_exception = True
    log = logging.getLogger("ray.data")
    for handler in list(log.handlers):
        if not isinstance(handler, logging.FileHandler) and "File" not in type(handler).__name__:
            log.removeHandler(handler)
