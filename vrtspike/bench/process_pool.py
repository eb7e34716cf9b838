"""Training workers on this machine, as processes that take turns when asked.

In: a configuration and a number of workers (see `vrtspike.bench.worker`). Out, for each turn: what
it was for each worker.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path

from vrtspike.bench.worker import Place, Taken, Turn, own_cores, serve
from vrtspike.config.config import Config
from vrtspike.errors import ResourceError, VrtSpikeError
from vrtspike.storage.folder import Folder

END_SECONDS = 10.0
"""How long a worker may take to end by itself."""


class Team:
    """The parent's end of some workers."""

    def __init__(self, workers: int, pipes: list[Connection]) -> None:
        self.workers, self._pipes = workers, pipes

    def take(self, turn: Turn) -> list[Taken]:
        """Have all workers take a turn; raise what one raises, or ResourceError where it dies."""
        for pipe in self._pipes:
            # To one that has died; the answers tell.
            with contextlib.suppress(OSError):
                pipe.send(turn)
        answers: dict[int, Taken] = {}
        while len(answers) < self.workers:
            waiting = {pipe: rank for rank, pipe in enumerate(self._pipes) if rank not in answers}
            for ready in wait(list(waiting)):
                assert isinstance(ready, Connection)
                answers[waiting[ready]] = self._receive(ready, waiting[ready])
        return [answers[rank] for rank in range(self.workers)]

    def _receive(self, pipe: Connection, rank: int) -> Taken:
        try:
            answer = pipe.recv()
        except (EOFError, OSError):
            answer = "the process died: killed for its memory?"
        if isinstance(answer, Taken):
            return answer
        if isinstance(answer, VrtSpikeError):
            raise answer
        raise ResourceError(
            "a training worker could not be measured",
            where=f"worker {rank} of {self.workers}",
            got=answer,
        )


@contextmanager
def team(
    config: Config,
    workers: int,
    *,
    apart: bool = False,
    gpu: bool,
    folder: Path,
    checkpoints: Folder,
) -> Iterator[Team]:
    """Start workers that meet in a file of `folder`, or stay apart; end them after the block."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    with ExitStack() as stack:
        for number in range(workers):
            ours, theirs = context.Pipe()
            stack.callback(ours.close)
            store = folder / (f"apart-{workers}-{number}" if apart else f"meet-{workers}")
            place = Place(number, workers, apart, gpu, str(store), checkpoints)
            process = context.Process(target=serve, args=(theirs, config, place), daemon=True)
            process.start()
            theirs.close()  # so that its end is seen when the process dies
            pipes.append(ours)
            processes.append(process)
        try:
            yield Team(workers, pipes)
        finally:
            for pipe in pipes:
                pipe.close()
            deadline = time.monotonic() + END_SECONDS
            for process in processes:
                process.join(max(0.0, deadline - time.monotonic()))
                process.kill()  # One that waits for a dead one never ends.
                process.join()


def have_own(config: Config, workers: int, *, gpu: bool) -> bool:
    """Tell whether so many workers each have a GPU, or cores, of their own."""
    return gpu or own_cores(0, workers, config.train.threads_per_worker) is not None
