"""What checkpoints cost the training loop.

In: a team of workers. Out: a `Saving`. The team takes steps beside which a checkpoint is written,
as a run writes them (`vrtspike.checkpoints.saver`), and as many steps without, in turns.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from vrtspike.bench.process_pool import Team
from vrtspike.bench.worker import Turn
from vrtspike.config.config import Config
from vrtspike.storage.folder import Folder

SAVE_EVERY = 50
"""Steps over which the cost of a checkpoint is spread."""
SAVE_ROOM, SAVE_STEPS = 2.0, 6
"""Steps beside a checkpoint take so many times as long as it takes to become whole, and are so many
at least."""


@dataclass(frozen=True)
class Saving:
    """What a checkpoint costs the training loop."""

    workers: int
    batch: int
    window: int
    """Steps beside a checkpoint."""
    step_s: float
    """Median of steps without a checkpoint."""
    blocked_s: float
    """What the loop waits for the copy of the state."""
    whole_s: float
    """Until the checkpoint is whole."""
    extra_s: float
    """What a checkpoint adds to the steps beside it, the copy included, and waiting for its end
    where the window is too short; median over turns."""
    extra_cpu_s: float
    """CPU time that a checkpoint adds on each worker, median over turns: what others on the machine
    cost does not show in it."""
    to: str
    """Where checkpoints were written."""

    @property
    def cost(self) -> float:
        """Return the share of a step, where one of every `SAVE_EVERY` steps saves."""
        return self.extra_s / (SAVE_EVERY * self.step_s)


def measure_saving(
    config: Config, members: Team, repeats: int, checkpoints: Folder, turned: Callable[[], None]
) -> Saving:
    """Let a team take steps with a checkpoint and without in turns."""
    batch = members.workers * config.train.micro_batch * config.train.accumulation
    (first, *_) = members.take(Turn(batch, 2, save=True))
    turned()
    # Long enough for the checkpoint to become whole beside steps.
    steps = math.ceil(SAVE_ROOM * first.whole_s / min(first.seconds))
    window = min(SAVE_EVERY, max(SAVE_STEPS, steps))
    extra, extra_cpu, saves = [], [], []
    plain: list[float] = []
    for _ in range(repeats):
        without = members.take(Turn(batch, window))[0]
        turned()
        with_one = members.take(Turn(batch, window, save=True))[0]
        turned()
        beside = with_one.blocked_s + sum(with_one.seconds) + with_one.waited_s
        extra.append(beside - sum(without.seconds))
        extra_cpu.append(with_one.cpu_s - without.cpu_s)
        plain += without.seconds
        saves.append(with_one)
    return Saving(
        workers=members.workers,
        batch=batch,
        window=window,
        step_s=statistics.median(plain),
        blocked_s=statistics.median(save.blocked_s for save in saves),
        whole_s=statistics.median(save.whole_s for save in saves),
        extra_s=statistics.median(extra),
        extra_cpu_s=statistics.median(extra_cpu),
        to=str(checkpoints),
    )
