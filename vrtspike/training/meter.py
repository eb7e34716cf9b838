"""What steps cost: time by phase, and memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import torch

from vrtspike.heap import peak_bytes

if TYPE_CHECKING:
    from vrtspike.data.pipeline import MicroBatches


class Taken(NamedTuple):
    """Steps, their seconds, and the seconds of them spent waiting for data."""

    steps: int
    seconds: float
    waited: float


class StepClock:
    """Measure the time of steps between two log lines, without validation and saving."""

    def __init__(self, batches: MicroBatches) -> None:
        self._batches = batches
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        self._since = time.perf_counter()

    def step(self) -> None:
        """End a step."""
        self._steps += 1
        self._seconds += time.perf_counter() - self._since

    def resume(self) -> None:
        """Begin the next step."""
        self._since = time.perf_counter()

    def take(self) -> Taken:
        """Return what was counted since the last call."""
        waited = self._batches.waited
        taken = Taken(self._steps, self._seconds, waited - self._waited)
        self._steps, self._seconds, self._waited = 0, 0.0, waited
        return taken


def memory_gb(device: torch.device) -> float:
    """Return the most memory that this process has held, in 10^9 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return peak_bytes() / 1e9
