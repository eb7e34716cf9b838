"""One training worker that takes steps on invented samples, in a process of its own.

In: a configuration, the worker's place in its team, and turns. Out: for each turn the seconds of
its steps, what collectives took and sent, memory, and what a checkpoint cost. The worker builds
model, optimiser and average as a training run does; only the samples are made up, once, in the
configuration's shapes, so no data pipeline and no Ray take part. The learning rate is zero: the
weights must not run away on noise, and the work is the same.

On CPUs each worker is bound to cores of its own, one for each of its threads, where there are
enough. Otherwise a worker that is alone would use more of the machine than it is given in company
(the system moves it about, its helper threads run elsewhere), and comparing would say nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from vrtspike.bench.collectives import watched
from vrtspike.bench.passes import PeakMemory
from vrtspike.bench.step_model import Sent
from vrtspike.checkpoints.saver import Saver
from vrtspike.config.config import Config
from vrtspike.errors import VrtSpikeError, named_line
from vrtspike.samples.order import Share
from vrtspike.storage.folder import Folder
from vrtspike.training.learner import Learner
from vrtspike.training.optim import set_learning_rate
from vrtspike.training.restore_task import RestoreTask
from vrtspike.training.step import TrainingStep
from vrtspike.training.tasks import task_of


@dataclass(frozen=True)
class Turn:
    """What a team is asked for: one step that does not count, and `steps` that do."""

    batch: int
    """Samples of a step, over all workers."""
    steps: int
    save: bool = False
    """Begin a checkpoint before the first step that counts, and wait for it after the last."""


@dataclass(frozen=True)
class Taken:
    """What a turn was for one worker."""

    seconds: tuple[float, ...]
    """Of each step."""
    collective_s: float
    """Of all steps."""
    cpu_s: float
    """CPU time of all steps and the checkpoint, of all threads."""
    sent: Sent
    """In one step."""
    peak_bytes: int
    """Greatest memory beyond that before the model was built."""
    blocked_s: float = 0.0
    """What the loop waited for the copy of the state."""
    waited_s: float = 0.0
    """What it waited after the steps for the checkpoint to be whole."""
    whole_s: float = 0.0
    """From the beginning of the checkpoint until it was whole."""


@dataclass(frozen=True)
class Place:
    """Which worker a process is."""

    number: int
    """Among the workers that take turns together, from 0."""
    workers: int
    apart: bool
    """Each trains a model of its own, and none talks to another."""
    gpu: bool
    store: str
    """The file in which the processes find each other."""
    checkpoints: Folder
    """Where checkpoints go."""

    @property
    def device(self) -> torch.device:
        """Return what the worker computes on."""
        return torch.device("cuda", self.number) if self.gpu else torch.device("cpu")

    @property
    def ranks(self) -> int:
        """Return how many share a model."""
        return 1 if self.apart else self.workers

    @property
    def rank(self) -> int:
        """Return which of them the worker is."""
        return 0 if self.apart else self.number


def own_cores(rank: int, workers: int, threads: int) -> list[int] | None:
    """Return the cores of a worker, or None where there are not enough for all."""
    cores = sorted(os.sched_getaffinity(0))
    if workers * threads > len(cores):
        return None
    return cores[rank * threads : (rank + 1) * threads]


def serve(pipe: Connection, config: Config, place: Place) -> None:
    """Take a turn whenever asked, until the other end is closed."""
    try:
        worker = Worker(config, place)
        while True:
            pipe.send(worker.take(pipe.recv()))
    except EOFError:
        dist.destroy_process_group()
    except Exception as error:
        text = named_line(error)
        # Where all workers fail, the parent has closed the pipe after the first.
        with contextlib.suppress(OSError):
            pipe.send(error if isinstance(error, VrtSpikeError) else text)


class Worker:
    """One training process."""

    def __init__(self, config: Config, place: Place) -> None:
        self._config, self._place, self._device = config, place, place.device
        train = config.train
        if place.gpu:
            torch.cuda.set_device(place.number)
        else:
            _bind(own_cores(place.number, place.workers, train.threads_per_worker))
            torch.set_num_threads(train.threads_per_worker)
        dist.init_process_group(
            "nccl" if place.gpu else "gloo",
            init_method=f"file://{place.store}",
            rank=place.rank,
            world_size=place.ranks,
        )
        self._memory = PeakMemory(self._device)
        self._learner = Learner(task_of(config), self._device, rank=place.rank)
        # Steps are the same again and again: the weights stay.
        set_learning_rate(self._learner.optimizer, 0.0)
        self._samples = invented(config, train.micro_batch, seed=place.number)
        self._saver: Saver | None = None
        self._saves = 0

    def take(self, turn: Turn) -> Taken:
        """Take a turn."""
        ranks, workers = self._place.ranks, self._place.workers
        share = Share(turn.batch * ranks // workers, self._config.train.micro_batch, ranks)
        step = self._learner.step_over(share, RestoreTask(self._config).unpack)
        self._one(step, share)
        if turn.save:
            self._make_saver()
        self._wait()
        self._memory.reset()
        dist.barrier()
        blocked_s = waited_s = whole_s = 0.0
        cpu_s = time.process_time()
        with watched(self._device) as collectives:
            if turn.save:
                start = time.perf_counter()
                self._save()
                blocked_s = time.perf_counter() - start
            seconds = self._steps(step, share, turn.steps)
            if turn.save:
                start = time.perf_counter()
                whole_s = self._saved()
                waited_s = time.perf_counter() - start
        cpu_s = time.process_time() - cpu_s
        peak = self._memory.peak()
        self._memory.give_back()
        return Taken(
            seconds,
            collectives.seconds,
            cpu_s,
            collectives.sent(turn.steps),
            peak,
            blocked_s,
            waited_s,
            whole_s,
        )

    def _steps(self, step: TrainingStep, share: Share, count: int) -> tuple[float, ...]:
        """Take steps; return the seconds of each."""
        seconds = []
        for _ in range(count):
            start = time.perf_counter()
            self._one(step, share)
            self._wait()
            seconds.append(time.perf_counter() - start)
        return tuple(seconds)

    def _one(self, step: TrainingStep, share: Share) -> None:
        """Take one step, as the training loop does."""
        notices = {"stop": False, "save": False, "look": False}
        result = step([self._samples] * share.accumulation, freeze_flow=False, notices=notices)
        assert result.stepped, "noise gives finite gradients"
        if self._learner.average is not None:
            self._learner.average.update()

    def _make_saver(self) -> None:
        """Prepare for the first checkpoint."""
        if self._saver is None:
            group = dist.new_group(backend="gloo")
            assert isinstance(group, dist.ProcessGroup), "every worker is in it"
            keep = self._config.train.keep_checkpoints
            self._saver = Saver(self._place.checkpoints, group=group, keep=keep)

    def _save(self) -> None:
        """Begin a checkpoint."""
        assert self._saver is not None
        self._saves += 1
        self._saver.save(self._saves, self._learner.state.collect(), {}, best_step=None)

    def _saved(self) -> float:
        """Wait until the checkpoint is whole; return the seconds that took from its beginning."""
        assert self._saver is not None
        self._saver.wait()
        (result,) = self._saver.finished()
        if result.error is not None:
            raise result.error
        return result.seconds

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()


def invented(config: Config, samples: int, *, seed: int) -> dict[str, NDArray[Any]]:
    """Return a micro-batch of noise in the shapes of `vrtspike.samples.sample`."""
    data = config.data
    rng, size = np.random.default_rng(seed), (data.crop, data.crop)
    frames = {
        name: rng.integers(0, 256, (samples, data.frames, 3, *size), np.uint8)
        for name in ("blurred", "sharp")
    }
    if config.model.fusion == "none":
        return frames
    shape = (samples, data.frames, config.model.spike.channels, *size)
    return frames | {"voxels": rng.random(shape, np.float32).astype(np.float16)}


def _bind(cores: list[int] | None) -> None:
    """Bind all threads of this process to cores, those that libraries have started, too."""
    if cores is not None:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), cores)
