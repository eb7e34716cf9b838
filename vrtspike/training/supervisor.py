"""The supervisor of a run: an actor between the driver and the workers.

Workers post records (steps, scores, checkpoints, failures) and send a heartbeat about twice a
second. The driver fetches the records and can ask for a stop. The supervisor also decides what
needs a view of all ranks: whether the run hangs and which rank the others wait for; whether to give
up because the workers fail repeatedly without a new checkpoint; and whether there are no workers.

All times are seconds of the supervisor's monotonic clock. `vrtspike.training.driver` makes the
class a Ray actor; nothing here needs Ray.
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
"""The reason given for an attempt that ended without one."""

REFUSED_SECONDS = 5.0
"""How long the other ranks may take to end by themselves after one rank reported a fatal error."""
WAITING_SECONDS = 60.0
"""Time between warnings that there are no workers."""
DESERTED_SECONDS = 30.0
"""How long the driver waits after the stop request or the last heartbeat, whichever is later;
workers take some seconds to end after they have saved."""
SILENT_SECONDS = 10.0
"""A rank without a heartbeat for this long has stopped completely."""


@dataclass(frozen=True)
class Heartbeat:
    """The progress of one rank: its ticks so far, what it is doing, and where in the code."""

    attempt: str
    rank: int
    ticks: int
    doing: str
    process: str
    """Host and process id."""
    stack: str = ""


@dataclass(frozen=True)
class Command:
    """The supervisor's answer to a heartbeat."""

    stop: bool
    """Save and stop after the current step."""
    end: str | None
    """Why the rank must end its process at once; None if it need not."""


@dataclass
class Update:
    """What happened since the driver's last request."""

    records: list[Record] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    refusal: VrtSpikeError | None = None
    """The error that ended the run; a restart would fail with it too."""
    given_up: Exception | None = None
    """Why the workers are not restarted."""
    deserted: bool = False
    """Whether a stop was requested and no worker is left that could save."""


@dataclass
class _Rank:
    beat: Heartbeat
    heard: float
    moved: float


class Supervisor:
    """Pass records to the driver and commands to the workers; find hangs and repeated failures.

    `max_failures`: failures allowed without a new checkpoint in between. `hang_timeout_s`: seconds
    without progress of any rank before the run counts as hanging. `start_timeout_s`: seconds
    without workers before the supervisor gives up.
    """

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
        """Time of the stop request."""
        self._attempt = ""
        self._world = 0
        self._ranks: dict[int, _Rank] = {}
        self._end: str | None = None
        self._refused = float("inf")
        self._saved_step = -1
        self._failures = 0
        self._reason: str | None = None

    def take(self) -> Update:
        """Return what happened since the last call; the driver calls this about every 0.3 s."""
        self._look_for_workers()
        update, self._update = self._update, Update()
        if self._stopped is not None:
            last = max([self._stopped, *(rank.heard for rank in self._ranks.values())])
            update.deserted = self._clock() - last > DESERTED_SECONDS
        return update

    def _look_for_workers(self) -> None:
        """Warn while there are no workers; give up after `start_timeout_s` without any."""
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
        """Ask the workers to save and end after the current step."""
        self._stopped = self._clock() if self._stopped is None else self._stopped

    def begin(self, attempt: str, world: int) -> bool:
        """Register a new group of workers; return whether it may train. Only rank 0 calls this."""
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
        """Pass a record to the driver; a new checkpoint resets the count of failures."""
        if record["kind"] == "saved" and record["step"] > self._saved_step:
            self._saved_step, self._failures = record["step"], 0
        self._update.records.append(record)

    def warn(self, text: str) -> None:
        """Ask the driver to show a warning to the user."""
        self._update.warnings.append(text)

    def refuse(self, error: VrtSpikeError) -> None:
        """Store the error that ends the run."""
        self._update.refusal, self._refused = error, self._clock()

    def fail(self, attempt: str, reason: str) -> None:
        """Store why an attempt failed; only the first reason counts, the others follow from it."""
        if attempt == self._attempt:
            self._reason = self._reason or reason

    def beat(self, beat: Heartbeat) -> Command:
        """Store the heartbeat of a rank; return the command for it."""
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
        """Describe the ranks that the others wait for: silent ones, or those furthest behind."""
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
