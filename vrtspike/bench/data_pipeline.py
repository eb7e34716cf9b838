"""How many samples the real pipeline delivers on some cores, and its memory.

In: a source and a number of cores. Out: a `Throughput`. Each case runs in a process of its own that
starts its own Ray, all of it bound to those cores: the data tasks, the consumer and Ray's scheduler
beside it. The consumer does nothing with a batch but take it.

Memory is the proportional set size (PSS) of consumer and workers together, looked at every second
and at the end; a page of the object store or of a shard that several of them have mapped counts
once.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vrtspike.bench.data_stages import FolderSource, ShardSource, Source, StageClock, make_source
from vrtspike.bench.generated import SPLIT
from vrtspike.errors import ResourceError, named_line
from vrtspike.samples.order import Share, micro_batch
from vrtspike.samples.sample import SampleReader
from vrtspike.samples.shards import read_manifest

if TYPE_CHECKING:
    from vrtspike.samples.stream import Stream

WORKER = "worker"
"""The entry of a batch that names the process that made it."""
LOOK_SECONDS = 1.0
"""How often memory is looked at; a look takes the consumer some milliseconds a process."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class PipelineCase:
    """What is measured."""

    source: Source
    cores: int
    """Cores that everything runs on, and CPUs that data tasks may use."""
    clips: int
    reader: SampleReader
    folder: str
    """The dataset folder of the source `folder`."""
    batch: int
    """Samples of a micro-batch."""
    batches: int
    """Micro-batches that are timed."""
    warm_up: int
    """Micro-batches before: workers start, files are opened."""


@dataclass(frozen=True)
class Throughput:
    """What a case came to."""

    source: Source
    cores: int
    clips: int
    samples_s: float
    bytes_s: float
    """Bytes of the delivered micro-batches."""
    consumer_cpu_s: float
    """CPU seconds of the consumer's process for a sample."""
    workers_cpu_s: float
    """CPU seconds of all processes that made samples, for a sample."""
    workers: int
    peak_bytes: int
    """Greatest PSS of the consumer and the workers together."""
    consumer_bytes: int
    """The consumer's part of it."""


def measure_pipeline(case: PipelineCase) -> Throughput:
    """Run a case in a new process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(theirs, case))
    process.start()
    theirs.close()  # so that its end is seen when the process dies
    try:
        answer = ours.recv()
    except EOFError:
        answer = "the process died: killed for its memory?"
    finally:
        ours.close()
        process.join()
    if isinstance(answer, Throughput):
        return answer
    raise ResourceError(
        "the pipeline could not be measured",
        where=f"{case.source}, {case.cores} cores, {case.clips} clips",
        got=answer,
    )


def _run(pipe: Connection, case: PipelineCase) -> None:
    """Start Ray on some cores and measure."""
    from vrtspike.runtime.ray_session import connect

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: case.cores])
    os.environ.pop("RAY_ADDRESS", None)
    try:
        with connect():
            pipe.send(_consume(case))
    except Exception as error:
        pipe.send(named_line(error))


def _consume(case: PipelineCase) -> Throughput:
    """Take all micro-batches, and time those after the warm-up."""
    from vrtspike.samples.stream import MicroBatches

    processes, size = _Processes(), 0
    before = processes.times()
    stream = _stream(case)
    batches = MicroBatches(stream, 0, case.warm_up + case.batches, cpus=case.cores)
    for number, arrays in enumerate(batches, 1):
        processes.see(int(arrays.pop(WORKER)[0]))
        if number == case.warm_up:
            before = processes.times()
        size = sum(array.nbytes for array in arrays.values())
    after = processes.times()
    processes.look()
    took, consumer_s, workers_s = (b - a for a, b in zip(before, after, strict=True))
    samples = case.batches * case.batch
    return Throughput(
        case.source,
        case.cores,
        case.clips,
        samples / took,
        case.batches * size / took,
        consumer_s / samples,
        workers_s / samples,
        len(processes.workers),
        processes.peak,
        processes.peak_here,
    )


def _stream(case: PipelineCase) -> Stream:
    """Return a stream whose batches name the process that made them."""
    from vrtspike.samples.stream import Stream

    @dataclass(frozen=True)
    class MeasuredStream(Stream):
        reader: SampleReader
        source: Source
        folder: str

        def make(self, number: int) -> dict[str, NDArray[Any]]:
            if self.source == "shards":
                arrays = super().make(number)
            else:
                draws = micro_batch(self.reader.seed, self.samples, self.share, number, self.rank)
                maker = _opened(self.source, self.folder, self.reader)
                arrays = maker.make(draws, StageClock())
            return arrays | {WORKER: np.array([os.getpid()])}

    samples = len(read_manifest(case.reader.shards).splits[SPLIT].samples)
    share = Share(case.batch, case.batch, 1)
    return MeasuredStream(case.reader, samples, share, 0, case.source, case.folder)


@lru_cache(maxsize=1)
def _opened(source: Source, folder: str, reader: SampleReader) -> ShardSource | FolderSource:
    """Open a source once a process."""
    return make_source(source, folder, reader)


@dataclass
class _Processes:
    """This process and the workers that were seen so far: their CPU seconds and memory."""

    workers: set[int] = field(default_factory=set)
    peak: int = 0
    peak_here: int = 0
    _looked: float = 0.0

    def see(self, worker: int) -> None:
        """Note who made a batch, and look at the memory from time to time."""
        self.workers.add(worker)
        if time.perf_counter() - self._looked >= LOOK_SECONDS:
            self.look()

    def look(self) -> None:
        """Look at the memory of all."""
        self._looked = time.perf_counter()
        here = _memory(os.getpid())
        whole = here + sum(_memory(worker) for worker in self.workers)
        if whole > self.peak:
            self.peak, self.peak_here = whole, here

    def times(self) -> tuple[float, float, float]:
        """Return the time, and the CPU seconds of this process and of all workers so far."""
        workers = sum(_cpu_seconds(worker) for worker in self.workers)
        return time.perf_counter(), time.process_time(), workers


def _memory(process: int) -> int:
    """Return a process's PSS in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _cpu_seconds(process: int) -> float:
    """Return the CPU seconds that a process has taken; 0 if it has ended."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
