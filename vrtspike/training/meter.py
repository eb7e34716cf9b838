"""The cost of training steps: wall time, CPU time, waiting for data, and memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import torch

from vrtspike.runtime.process_memory import peak_bytes

if TYPE_CHECKING:
    from vrtspike.samples.stream import MicroBatches


class Seconds(NamedTuple):
    """Wall time and CPU time in seconds; CPU time is that of all threads of this process."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Seconds:
        """Read both clocks."""
        return cls(time.perf_counter(), time.process_time())

    def plus(self, other: Seconds) -> Seconds:
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)

    def minus(self, other: Seconds) -> Seconds:
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)


NO_TIME = Seconds(0.0, 0.0)


class Taken(NamedTuple):
    """A number of steps, their wall time, and the part of it spent waiting for data (seconds)."""

    steps: int
    seconds: float
    waited: float


class StepClock:
    """Measure the time of steps, without validation and saving.

    `spent` is the time of all steps of the run so far. `take` returns the steps since its last
    call.
    """

    def __init__(self, batches: MicroBatches, spent: Seconds = NO_TIME) -> None:
        self._batches = batches
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        self.spent = spent
        self._since = Seconds.now()

    def step(self) -> Seconds:
        """End a step; return its time."""
        took = Seconds.now().minus(self._since)
        self._steps += 1
        self._seconds += took.wall
        self.spent = self.spent.plus(took)
        return took

    def resume(self) -> None:
        """Start to measure the next step."""
        self._since = Seconds.now()

    def take(self) -> Taken:
        """Return the steps since the last call."""
        waited = self._batches.waited
        taken = Taken(self._steps, self._seconds, waited - self._waited)
        self._steps, self._seconds, self._waited = 0, 0.0, waited
        return taken


def memory_gb(device: torch.device) -> float:
    """Return the peak memory of this process on a device, in GB (10^9 bytes)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return peak_bytes() / 1e9
