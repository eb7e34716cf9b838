"""Save checkpoints in the background while training continues, at most one at a time.

`save` copies the state (milliseconds) and a thread writes it. If storage is slower than training,
`save` waits for the save before it, so copies never pile up. If storage fails, only that checkpoint
is lost, not the run: the results contain the failure, and the next save tries again. The last
checkpoint must not be lost, so `save_with_retries` retries it.
"""

from __future__ import annotations

import copy
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from vrtspike.checkpoints.manifest import prune
from vrtspike.checkpoints.read_write import CheckpointWriter
from vrtspike.checkpoints.snapshot import Snapshot, SnapshotBuffer
from vrtspike.errors import CheckpointError, VrtSpikeError, named_line
from vrtspike.storage.folder import Folder

logger = logging.getLogger(__name__)

LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class SaveResult:
    """The result of one save."""

    step: int
    seconds: float
    """Time from the copy of the state to the manifest."""
    error: CheckpointError | None
    """Why the save failed; None if the checkpoint is whole."""


@dataclass(frozen=True)
class _Job:
    """A copy of the state, ready to be written."""

    step: int
    snapshot: Snapshot
    facts: dict[str, Any]
    best_step: int | None
    started: float


class Saver:
    """Save the checkpoints of a run; all ranks make the same calls in the same order.

    `group`: a gloo process group that nothing else uses during a save; its timeout must be longer
    than the slowest write. `keep`: the newest checkpoints to keep, besides the best one. `first` is
    called on each rank before each checkpoint is written, in the thread that writes it.
    """

    def __init__(
        self,
        checkpoints: Folder,
        *,
        group: dist.ProcessGroup,
        keep: int,
        first: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._checkpoints, self._keep, self._first = checkpoints, keep, first
        self._best: int | None = None
        self._rank = dist.get_rank(group)
        self._clock, self._sleep = clock, sleep
        self._writer, self._buffer = CheckpointWriter(checkpoints, group), SnapshotBuffer()
        self._thread: threading.Thread | None = None
        self._results: queue.SimpleQueue[SaveResult] = queue.SimpleQueue()

    @property
    def busy(self) -> bool:
        """Whether a save is running in the background."""
        return self._thread is not None and self._thread.is_alive()

    def save(
        self, step: int, state: dict[str, Any], facts: dict[str, Any], *, best_step: int | None
    ) -> None:
        """Start a save in the background; afterwards the state and the facts may change.

        Waits for an earlier save first. `finished` returns the result, also if the save failed.
        """
        job = self._job(step, state, facts, best_step)
        # A daemon thread, because a process that ends with an error must not wait for hanging
        # storage.
        self._thread = threading.Thread(
            target=lambda: self._results.put(self._write(job)), name="checkpoint", daemon=True
        )
        self._thread.start()

    def save_with_retries(
        self,
        step: int,
        state: dict[str, Any],
        facts: dict[str, Any],
        *,
        best_step: int | None,
        timeout_s: float,
        failing: Callable[[CheckpointError], None],
    ) -> None:
        """Save before returning; if that fails, try again for `timeout_s` by rank 0's clock.

        `failing` is called with the error of each failed attempt. Raises CheckpointError on all
        ranks after the timeout.
        """
        job = self._job(step, state, facts, best_step)
        pause, deadline = 1.0, self._clock() + timeout_s
        while (error := (result := self._write(job)).error) is not None:
            left = self._writer.agree(deadline - self._clock())
            if left <= 0:
                raise CheckpointError(
                    error.what,
                    where=error.where,
                    got=error.got,
                    expected=error.expected,
                    fix=f"tried for {timeout_s:g} s (train.storage_timeout_s); {error.fix}, "
                    "then start the run again: it continues from its newest checkpoint",
                )
            failing(error)
            self._sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_S)
        self._results.put(result)

    def wait(self) -> None:
        """Wait until no save is running."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def finished(self) -> list[SaveResult]:
        """Return the results of saves that have ended since the last call, without waiting."""
        results = []
        while not self._results.empty():
            results.append(self._results.get())
        return results

    def _job(
        self, step: int, state: dict[str, Any], facts: dict[str, Any], best_step: int | None
    ) -> _Job:
        """Wait for the save before this one, which uses the same memory; then copy the state."""
        self.wait()
        started = self._clock()
        return _Job(step, self._buffer.copy(state), copy.deepcopy(facts), best_step, started)

    def _write(self, job: _Job) -> SaveResult:
        """Write a checkpoint, then delete old ones; return the result."""
        error = None
        try:
            self._first()
            self._writer.write(job.step, job.snapshot, job.facts)
        except CheckpointError as problem:
            error = problem
        except Exception as problem:
            # For example an error of the process group; training notices a lost rank by itself.
            error = CheckpointError("cannot save a checkpoint", got=named_line(problem))
        result = SaveResult(job.step, self._clock() - job.started, error)
        if error is None and self._rank == 0:
            self._prune(job)
        return result

    def _prune(self, job: _Job) -> None:
        """Delete old checkpoints.

        If the newest best checkpoint failed to save, the best one before it is kept too.
        """
        if job.best_step == job.step:
            self._best = job.step
        best = {step for step in (self._best, job.best_step) if step is not None}
        try:
            prune(self._checkpoints, step=job.step, keep=self._keep, best=best)
        except VrtSpikeError as problem:
            logger.warning("old checkpoints were not deleted: %s", problem)
