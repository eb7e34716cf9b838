"""What the driver and the workers of a run tell each other, kept by one small actor.

Workers post records (steps, scores, checkpoints, failures) and beat about twice a second with how
far they are; the driver takes the records and asks for a stop. The supervisor also decides what
only somebody who hears all ranks can decide: that the run hangs and which rank the others wait for,
and that starting again is of no use because attempts fail without a new checkpoint in between, or
that there are no workers.

Times are seconds of one monotonic clock, the supervisor's. Ray makes an actor of the class
(`vrtspike.training.driver`); nothing here needs Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vrtspike.errors import NoRoomError, VrtSpikeError
from vrtspike.runs.metrics_log import Record

ENDED = (
    "the workers were ended from outside (killed, a node lost, or another number of them wanted)"
)
"""What is said of an attempt that left no reason."""

REFUSED_SECONDS = 5.0
"""How long the other ranks have to end by themselves after one has refused."""
WAITING_SECONDS = 60.0
"""How often the user hears that there are no workers."""
DESERTED_SECONDS = 30.0
"""How long after the request for a stop, or the last word of a worker, there is nobody to wait for;
workers that have saved take some seconds to be gone."""
SILENT_SECONDS = 10.0
"""A rank that has not beaten for so long has stopped as a whole."""


@dataclass(frozen=True)
class Heartbeat:
    """How far a rank is: counted signs of life, what it does, and where in the code."""

    attempt: str
    rank: int
    ticks: int
    doing: str
    process: str
    """Host and process id."""
    stack: str = ""


@dataclass(frozen=True)
class Command:
    """What a rank is told: to save and stop, or to end its process at once, and why."""

    stop: bool
    end: str | None


@dataclass
class Update:
    """What happened since the driver last asked."""

    records: list[Record] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    refusal: VrtSpikeError | None = None
    """An error of ours that ended the run: trying again would not help."""
    given_up: Exception | None = None
    """Why the workers are not started again."""
    deserted: bool = False
    """A stop was asked for, and there is no worker that could save before it."""


@dataclass
class _Rank:
    beat: Heartbeat
    heard: float
    moved: float


class Supervisor:
    """Records on their way to the driver, requests on their way to the workers."""

    def __init__(
        self,
        *,
        max_failures: int,
        hang_timeout_s: float,
        start_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_failures, self._hang_timeout_s, self._clock = max_failures, hang_timeout_s, clock
        self._start_timeout_s, self._begun, self._warned = start_timeout_s, clock(), 0.0
        self._update = Update()
        self._stopped: float | None = None
        """When a stop was asked for."""
        self._attempt = ""
        self._world = 0
        self._ranks: dict[int, _Rank] = {}
        self._end: str | None = None
        self._refused = float("inf")
        self._saved_step = -1
        self._failures = 0
        self._reason: str | None = None

    def take(self) -> Update:
        """Return the update, once each; the driver's call, which it makes all the time."""
        self._look_for_workers()
        update, self._update = self._update, Update()
        if self._stopped is not None:
            last = max([self._stopped, *(rank.heard for rank in self._ranks.values())])
            update.deserted = self._clock() - last > DESERTED_SECONDS
        return update

    def _look_for_workers(self) -> None:
        """Warn while there are no workers; give up when there are none for too long."""
        now = self._clock()
        heard = max([self._begun, *(rank.heard for rank in self._ranks.values())])
        if (away := now - heard) > self._start_timeout_s:
            self._update.given_up = NoRoomError(
                f"there have been no workers for {away:.0f} s (train.start_timeout_s): the cluster "
                "has no room for them, or they cannot start; Ray's logs tell more"
            )
        elif away > self._warned + WAITING_SECONDS:
            self._warned = away
            self._update.warnings.append(f"waiting for room for the workers, {away:.0f} s so far")
        elif away < WAITING_SECONDS:
            self._warned = 0.0

    def ask_to_stop(self) -> None:
        """Have the workers save and end after the step that they are in."""
        self._stopped = self._clock() if self._stopped is None else self._stopped

    def begin(self, attempt: str, world: int) -> bool:
        """Note that a group of workers starts; tell whether it is of any use (rank 0's call)."""
        if self._refused < float("inf"):
            return False
        if self._attempt:
            self._failures += 1
            reason = self._reason or ENDED
            if self._failures > self._max_failures:
                self._update.given_up = RuntimeError(
                    f"the workers failed {self._failures} times without a new checkpoint "
                    f"(run.max_failures {self._max_failures}); last: {reason}"
                )
                return False
            self._update.warnings.append(f"{reason}; they start again")
        self._attempt, self._world, self._begun = attempt, world, self._clock()
        self._ranks, self._end, self._reason = {}, None, None
        return True

    def post(self, record: Record) -> None:
        """Pass a record on; a new checkpoint clears the count of failures."""
        if record["kind"] == "saved" and record["step"] > self._saved_step:
            self._saved_step, self._failures = record["step"], 0
        self._update.records.append(record)

    def warn(self, text: str) -> None:
        """Have the driver tell the user something."""
        self._update.warnings.append(text)

    def refuse(self, error: VrtSpikeError) -> None:
        """Note an error of ours that ends the run."""
        self._update.refusal, self._refused = error, self._clock()

    def fail(self, attempt: str, reason: str) -> None:
        """Note why an attempt failed; the first word counts, as the other ranks' follow from it."""
        if attempt == self._attempt:
            self._reason = self._reason or reason

    def beat(self, beat: Heartbeat) -> Command:
        """Hear a rank; tell it what it must know."""
        now = self._clock()
        if beat.attempt != self._attempt:
            return Command(stop=False, end="another attempt has begun")
        before = self._ranks.get(beat.rank)
        moved = now if before is None or before.beat.ticks != beat.ticks else before.moved
        self._ranks[beat.rank] = _Rank(beat, now, moved)
        if now - self._refused > REFUSED_SECONDS:
            self._end = "another rank cannot go on"
        elif self._end is None and len(self._ranks) == self._world:
            still = now - max(rank.moved for rank in self._ranks.values())
            unheard = now - min(rank.heard for rank in self._ranks.values())
            if max(still, unheard) > self._hang_timeout_s:
                self._end = self._reason = (
                    f"no worker has moved for {still:.0f} s: {self._waited_for(now)}"
                    if still > self._hang_timeout_s
                    else self._waited_for(now)
                )
        return Command(self._stopped is not None, self._end)

    def _waited_for(self, now: float) -> str:
        """Name the rank that the others wait for: one that is silent, or the one least far."""
        silent = [r for r in self._ranks.values() if now - r.heard > SILENT_SECONDS]
        least = min(rank.beat.ticks for rank in self._ranks.values())
        behind = silent or [r for r in self._ranks.values() if r.beat.ticks == least]
        named = [
            f"rank {rank.beat.rank} ({rank.beat.process}) "
            + ("stopped answering while" if silent else "hangs while")
            + f" {rank.beat.doing}"
            + (f", at {rank.beat.stack}" if rank.beat.stack and not silent else "")
            for rank in behind
        ]
        if len(behind) == self._world > 1:
            return "all ranks are equally far: " + "; ".join(named)
        return "; ".join(named)
