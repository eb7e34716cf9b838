"""One training worker that takes steps on noise, in a process of its own, for `scaling.py`.

It builds model, optimiser and average as a training run does. Bytes that it sends are counted from
the tensors of the collectives; the time of those is that of their calls, which on GPUs only order
the work, so there it says little.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from figures import Row
from vrtspike.bench.passes import PeakMemory
from vrtspike.checkpoints.saver import Saver
from vrtspike.config.config import Config
from vrtspike.samples.order import StepLayout
from vrtspike.storage.folder import Folder
from vrtspike.training.learner import Learner
from vrtspike.training.optim import set_learning_rate
from vrtspike.training.restore_task import RestoreTask

SAVE_EVERY = 50
"""Steps over which the cost of a checkpoint is spread."""
ROOM = 2.0
"""Steps beside a checkpoint take so many times as long as it takes to become whole."""
CALLS = {
    "all_gather_into_tensor": "gather MB",
    "reduce_scatter_tensor": "scatter MB",
    # The names of the same since torch 2.15.
    "all_gather_single": "gather MB",
    "reduce_scatter_single": "scatter MB",
    "all_reduce": "reduce MB",
}


@dataclass(frozen=True)
class Case:
    """Workers, the samples of a step over all of them, and whether they train together."""

    kind: Literal["weak", "apart", "strong"]
    workers: int
    batch: int


def own_cores(config: Config, number: int, workers: int) -> list[int] | None:
    """Return the cores of a worker, or None where there are not enough for all."""
    threads, cores = config.train.threads_per_worker, sorted(os.sched_getaffinity(0))
    return cores[number * threads :][:threads] if workers * threads <= len(cores) else None


def work(
    number: int,
    config: Config,
    case: Case,
    steps: int,
    turns: int,
    folder: str,
    checkpoints: Folder,
    barrier: Barrier,
) -> None:
    """Be one worker: train on noise, and write what was found to a file."""
    train, apart = config.train, case.kind == "apart"
    rank, ranks = (0, 1) if apart else (number, case.workers)
    device = torch.device("cuda", number) if train.gpu else torch.device("cpu")
    torch.set_num_threads(train.threads_per_worker)
    if train.gpu:
        torch.cuda.set_device(device)
    elif cores := own_cores(config, number, case.workers):
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), cores)
    store = f"file://{folder}/meet-{number if apart else 0}"
    dist.init_process_group("nccl" if train.gpu else "gloo", store, rank=rank, world_size=ranks)
    memory, task = PeakMemory(device), RestoreTask(config)
    learner = Learner(task, device, rank=rank)
    set_learning_rate(learner.optimizer, 0.0)  # the weights must not run away on noise
    batch = case.batch or train.micro_batch * train.accumulation * case.workers
    layout = StepLayout(batch * ranks // case.workers, train.micro_batch, ranks)
    noise = [invented(config, number)] * layout.accumulation
    step = learner.step_over(layout, task.unpack)

    def steps_s(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            step(noise, freeze_flow=False, notices={"stop": False, "save": False, "look": False})
            if learner.average is not None:
                learner.average.update()
        memory.wait()
        return time.perf_counter() - start

    steps_s(1)
    memory.reset()
    barrier.wait()
    if turns:
        row = checkpoint_cost(learner, checkpoints, steps_s, steps, turns)
    else:
        with watched() as sent:
            cpu_s = time.process_time()
            seconds = steps_s(steps)
        row = {
            "step s": seconds / steps,
            "CPU s": (time.process_time() - cpu_s) / steps,
            "GiB": memory.peak() / 2**30,
            **{name: value / steps for name, value in sent.items()},
        }
    (Path(folder) / f"{number}.json").write_text(json.dumps(row))
    dist.destroy_process_group()


def checkpoint_cost(
    learner: Learner,
    checkpoints: Folder,
    steps_s: Callable[[int], float],
    steps: int,
    turns: int,
) -> Row:
    """Take steps beside which a checkpoint is written, and as many without, in turns."""
    group = dist.new_group(backend="gloo")
    assert isinstance(group, dist.ProcessGroup), "every worker is in it"
    saver = Saver(checkpoints, group=group, keep=1)

    def save(number: int, steps: int) -> tuple[float, float, float]:
        start = time.perf_counter()
        saver.save(number, learner.state.collect(), {}, best_step=None)
        waited = time.perf_counter() - start
        steps_s(steps)
        saver.wait()
        beside = time.perf_counter() - start
        (result,) = saver.finished()
        if result.error is not None:
            raise result.error
        return waited, result.seconds, beside

    # Long enough for a checkpoint to become whole beside steps, and the same on all workers.
    window = torch.tensor(ROOM * save(1, 1)[1] / steps_s(1))
    dist.all_reduce(window, dist.ReduceOp.MAX, group=group)
    steps = min(SAVE_EVERY, max(steps, math.ceil(window.item())))
    plain, saves = [], []
    for turn in range(turns):
        plain.append(steps_s(steps))
        saves.append(save(turn + 2, steps))
    step_s = statistics.median(plain) / steps
    added = statistics.median(save[2] - p for save, p in zip(saves, plain, strict=True))
    return {
        "step s": step_s,
        "the loop waits, s": statistics.median(save[0] for save in saves),
        "until it is whole, s": statistics.median(save[1] for save in saves),
        "steps beside it": steps,
        "added to them, s": added,
        f"of a step, saving every {SAVE_EVERY}": added / (SAVE_EVERY * step_s),
    }


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Sum what the collectives of this process send, and their seconds, while a block runs."""
    found = dict.fromkeys(["collectives s", *CALLS.values()], 0.0)

    def watch(name: str) -> Callable[..., Any]:
        collective, kind = getattr(dist, name), CALLS[name]

        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            out = collective(*args, **kwargs)
            found["collectives s"] += time.perf_counter() - start
            values = [*args, *kwargs.values()]
            # The whole: the output of a gather, the input of a scatter.
            whole = max(x.numel() * x.element_size() for x in values if isinstance(x, Tensor))
            group = next((x for x in values if isinstance(x, dist.ProcessGroup)), None)
            ranks = dist.get_world_size(group)
            found[kind] += (1 + (kind == "reduce MB")) * (ranks - 1) * whole / ranks / 1e6
            return out

        return call

    with ExitStack() as stack:
        for name in [name for name in CALLS if hasattr(dist, name)]:
            stack.enter_context(patch.object(dist, name, watch(name)))
        yield found


def invented(config: Config, seed: int) -> dict[str, NDArray[Any]]:
    """Return a micro-batch of noise in the shapes of `vrtspike.samples.sample`."""
    data, spikes = config.data, RestoreTask(config).spikes
    shape = config.train.micro_batch, data.frames
    rng, size = np.random.default_rng(seed), (data.crop, data.crop)
    arrays: dict[str, NDArray[Any]] = {
        name: rng.integers(0, 256, (*shape, 3, *size), np.uint8) for name in ("blurred", "sharp")
    }
    if spikes is not None:
        voxels = rng.random((*shape, spikes.channels, *size), np.float32)
        arrays["voxels"] = voxels.astype(np.float16)
    return arrays
