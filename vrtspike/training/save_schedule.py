"""When checkpoints are saved, and when a failed save is repeated.

All ranks make the same calls at the same steps. Only rank 0 reads `wanted`; it tells the other
ranks through the notices of a step (`vrtspike.training.step`).
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
"""Seconds between a failed save and the next attempt."""


class SaveSchedule:
    """Save the checkpoints of a run, on one rank.

    `describe` returns the facts to store in a checkpoint now, and the step of the best checkpoint.
    `patience_s` is how long to wait for storage that does not answer, in seconds.
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
        """Whether to save whenever no other save is running."""
        self.blocked_s = 0.0
        """How long the last save held up training, in seconds."""

    def continued(self, step: int) -> None:
        """Set the step of the checkpoint that the run continues from."""
        self._begun = self._whole = step

    def hurry(self) -> None:
        """From now on, save whenever no other save is running."""
        self.hurried = True

    @property
    def wanted(self) -> bool:
        """Whether a save is due in addition to the regular ones."""
        if self.hurried and not self._saver.busy:
            return True
        return time.monotonic() > self._retry_at

    def has(self, step: int) -> bool:
        """Return whether a checkpoint of this step exists or is being written."""
        return self._begun == step

    def save(self, step: int) -> None:
        """Start a checkpoint; training continues while it is written."""
        began = time.perf_counter()
        facts, best = self._describe()
        with self._link.patient("waiting for storage", self._patience_s):
            self._saver.save(step, self._state.collect(), facts, best_step=best)
        self.blocked_s = time.perf_counter() - began
        self._begun, self._retry_at = step, float("inf")

    def save_with_retries(self, step: int) -> list[SaveResult]:
        """Save this step and wait for it, unless that is already done; return the ended saves.

        Raises CheckpointError if storage still fails after `patience_s`.
        """
        with self._link.patient("waiting for storage", self._patience_s):
            self._saver.wait()
            ended = self.ended()
            if self._whole != step:
                facts, best = self._describe()
                self._saver.save_with_retries(
                    step,
                    self._state.collect(),
                    facts,
                    best_step=best,
                    timeout_s=self._patience_s,
                    failing=lambda error: self._warn(step, error),
                )
        return ended + self.ended()

    def ended(self) -> list[SaveResult]:
        """Return the saves that have ended since the last call; a failed one is repeated later."""
        results = self._saver.finished()
        for result in results:
            if result.error is None:
                self._whole, self._retry_at = result.step, float("inf")
            else:
                self._warn(result.step, result.error)
                self._retry_at = time.monotonic() + RETRY_SECONDS
        return results

    def _warn(self, step: int, error: CheckpointError) -> None:
        """Ask the driver to warn that a checkpoint is not saved yet."""
        if self._rank == 0:
            self._link.warn(f"no checkpoint of step {step} yet: {error}")
