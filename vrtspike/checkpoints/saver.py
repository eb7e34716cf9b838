"""Checkpoints that are written while training goes on, at most one at a time.

`save` copies the state (milliseconds) and leaves the writing to a thread. Storage that is slower
than training makes `save` wait, so nothing piles up. Storage that fails costs a checkpoint, not the
run: the failure is among the results, and the next save is a new attempt. What must not be lost,
the last one, is written by `save_surely`.
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
    """How a save ended; `error` is None where the checkpoint is whole."""

    step: int
    seconds: float
    """From the copy of the state to the manifest."""
    error: CheckpointError | None


@dataclass(frozen=True)
class _Order:
    """What is to be written."""

    step: int
    staged: Snapshot
    facts: dict[str, Any]
    best_step: int | None
    started: float


class Saver:
    """Save a run's checkpoints, on all ranks alike: each call is made by all, in the same
    order.

    `group` is a gloo group that nothing else uses while a save is under way; it needs a timeout
    longer than the slowest write. The newest `keep` checkpoints and the best one stay. `first` is
    called before each checkpoint is written, where and when that happens.
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
        self._writer, self._staging = CheckpointWriter(checkpoints, group), SnapshotBuffer()
        self._thread: threading.Thread | None = None
        self._results: queue.SimpleQueue[SaveResult] = queue.SimpleQueue()

    @property
    def busy(self) -> bool:
        """Tell whether a save is under way."""
        return self._thread is not None and self._thread.is_alive()

    def save(
        self, step: int, state: dict[str, Any], facts: dict[str, Any], *, best_step: int | None
    ) -> None:
        """Begin to save; the state and the facts may change once this returns.

        Waits for an earlier save first. A failure is among the results.
        """
        order = self._order(step, state, facts, best_step)
        # A process that ends in an error must not wait for storage that hangs.
        self._thread = threading.Thread(
            target=lambda: self._results.put(self._carry_out(order)), name="checkpoint", daemon=True
        )
        self._thread.start()

    def save_surely(
        self,
        step: int,
        state: dict[str, Any],
        facts: dict[str, Any],
        *,
        best_step: int | None,
        timeout_s: float,
        failing: Callable[[CheckpointError], None],
    ) -> None:
        """Save before returning; try again for as long as rank 0's clock says, then raise
        CheckpointError. `failing` is told of each attempt that failed."""
        order = self._order(step, state, facts, best_step)
        pause, deadline = 1.0, self._clock() + timeout_s
        while (error := (result := self._carry_out(order)).error) is not None:
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
        """Wait until no save is under way."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def finished(self) -> list[SaveResult]:
        """Return the results of saves that have ended since the last call, without waiting."""
        results = []
        while not self._results.empty():
            results.append(self._results.get())
        return results

    def _order(
        self, step: int, state: dict[str, Any], facts: dict[str, Any], best_step: int | None
    ) -> _Order:
        """Copy what is to be saved, once the copy before it is no longer needed."""
        self.wait()
        started = self._clock()
        return _Order(step, self._staging.copy(state), copy.deepcopy(facts), best_step, started)

    def _carry_out(self, order: _Order) -> SaveResult:
        """Write a checkpoint and delete what is not kept; tell how it ended."""
        error = None
        try:
            self._first()
            self._writer.write(order.step, order.staged, order.facts)
        except CheckpointError as problem:
            error = problem
        except Exception as problem:
            # Of the process group, say; training meets the loss of a rank by itself.
            error = CheckpointError("cannot save a checkpoint", got=named_line(problem))
        result = SaveResult(order.step, self._clock() - order.started, error)
        if error is None and self._rank == 0:
            self._prune(order)
        return result

    def _prune(self, order: _Order) -> None:
        """Delete what is no longer kept. A best one whose save failed pushes out none before it."""
        if order.best_step == order.step:
            self._best = order.step
        best = {step for step in (self._best, order.best_step) if step is not None}
        try:
            prune(self._checkpoints, step=order.step, keep=self._keep, best=best)
        except VrtSpikeError as problem:
            logger.warning("old checkpoints were not deleted: %s", problem)
