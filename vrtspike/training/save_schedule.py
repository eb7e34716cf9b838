"""When a rank saves, and what becomes of a save that failed.

All calls are made by all ranks at the same step; only `wanted` is rank 0's to ask, which tells the
others by a notice of the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from vrtspike.checkpoints.saver import Saver, SaveResult
from vrtspike.errors import CheckpointError
from vrtspike.training.state import TrainingState

if TYPE_CHECKING:
    from vrtspike.training.heartbeat import SupervisorLink

RETRY_SECONDS = 20.0
"""How long after a save that failed the next one is tried."""


class SaveSchedule:
    """The checkpoints of a run, from one rank's side.

    `describe` returns the facts of a checkpoint of this moment, and the step of the best one;
    storage that does not answer is waited for `patience_s`.
    """

    def __init__(
        self,
        saver: Saver,
        state: TrainingState,
        link: SupervisorLink,
        describe: Callable[[], tuple[dict[str, Any], int | None]],
        patience_s: float,
    ) -> None:
        self._patience_s = patience_s
        self._saver, self._state, self._link, self._describe = saver, state, link, describe
        self._rank = dist.get_rank()
        self._begun = self._whole = -1
        self._retry_at = float("inf")
        self.hurried = False
        """Whether a save is wanted whenever none is under way."""
        self.blocked_s = 0.0
        """Seconds for which the last save held up training."""

    def continued(self, step: int) -> None:
        """Note that there is a checkpoint of this step."""
        self._begun = self._whole = step

    def hurry(self) -> None:
        """From now on want a save whenever none is under way."""
        self.hurried = True

    @property
    def wanted(self) -> bool:
        """Tell whether a save is due beside the regular ones."""
        if self.hurried and not self._saver.busy:
            return True
        return time.monotonic() > self._retry_at

    def has(self, step: int) -> bool:
        """Tell whether a checkpoint of this step is there or being written."""
        return self._begun == step

    def save(self, step: int) -> None:
        """Begin a checkpoint; training goes on while it is written."""
        began = time.perf_counter()
        facts, best = self._describe()
        with self._link.patient("waiting for storage", self._patience_s):
            self._saver.save(step, self._state.collect(), facts, best_step=best)
        self.blocked_s = time.perf_counter() - began
        self._begun, self._retry_at = step, float("inf")

    def save_surely(self, step: int) -> list[SaveResult]:
        """Have a checkpoint of this step; return how the last saves ended.

        Raises CheckpointError when storage does not take it in time.
        """
        with self._link.patient("waiting for storage", self._patience_s):
            self._saver.wait()
            ended = self.ended()
            if self._whole != step:
                facts, best = self._describe()
                self._saver.save_surely(
                    step,
                    self._state.collect(),
                    facts,
                    best_step=best,
                    timeout_s=self._patience_s,
                    failing=lambda error: self._warn(step, error),
                )
        return ended + self.ended()

    def ended(self) -> list[SaveResult]:
        """Return the saves that have ended since the last call; one that failed is tried again."""
        results = self._saver.finished()
        for result in results:
            if result.error is None:
                self._whole, self._retry_at = result.step, float("inf")
            else:
                self._warn(result.step, result.error)
                self._retry_at = time.monotonic() + RETRY_SECONDS
        return results

    def _warn(self, step: int, error: CheckpointError) -> None:
        """Have the driver tell that a checkpoint is not there yet."""
        if self._rank == 0:
            self._link.warn(f"no checkpoint of step {step} yet: {error}")
