"""A rank's link to the run's supervisor: it sends heartbeats and receives commands.

The training loop calls `tick` whenever it makes progress. A thread sends the number of ticks twice
a second and receives the command to stop. If the supervisor finds that the run hangs, or that
another rank cannot go on, each rank ends its process at once, because nothing else can interrupt a
collective.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from vrtspike.errors import VrtSpikeError, named_line
from vrtspike.runs.metrics_log import Record
from vrtspike.training.supervisor import Command, Heartbeat

logger = logging.getLogger(__name__)

BEAT_SECONDS = 0.5
ANSWER_SECONDS = 30.0
"""Timeout of one heartbeat; the next one is sent after it."""
TOLD_TO_END = 70
"""Exit status of a process that ended by the supervisor's command."""
FRAMES = 3
"""Number of innermost stack frames of the training thread that a heartbeat includes."""


class SupervisorLink:
    """Count the ticks of a rank, and exchange messages with the supervisor."""

    def __init__(self, supervisor: Any, attempt: str, rank: int) -> None:
        self._supervisor, self._attempt, self._rank = supervisor, attempt, rank
        self._process = f"{socket.gethostname()}, process {os.getpid()}"
        self._trained_in = threading.get_ident()
        self._ticks, self._doing = 0, "starting"
        self._patient_until = 0.0
        self._sent = -1
        self._posted: Any = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="watch", daemon=True)
        self.stop = False
        """Whether the driver has asked the run to stop."""

    def start(self) -> None:
        """Start the heartbeat thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the heartbeat; wait until the last posted record has arrived."""
        self._ended.set()
        if self._posted is not None:
            ray.wait([self._posted], timeout=ANSWER_SECONDS)

    def tick(self, doing: str | None = None) -> None:
        """Count a sign of life; `doing` says what the rank does from now on."""
        self._ticks += 1
        self._doing = doing or self._doing

    @contextmanager
    def patient(self, doing: str, seconds: float) -> Iterator[None]:
        """Tick automatically inside the block, for `seconds` at most."""
        self.tick(doing)
        self._patient_until = time.monotonic() + seconds
        try:
            yield
        finally:
            self._patient_until = 0.0

    def post(self, record: Record) -> None:
        """Send a record to the driver without waiting."""
        self._posted = self._supervisor.post.remote(record)

    def warn(self, text: str) -> None:
        """Ask the driver to show a warning to the user."""
        self._supervisor.warn.remote(text)

    def refuse(self, error: VrtSpikeError) -> None:
        """Send the driver an error that ends the run, because a restart would fail with it too."""
        ray.get(self._supervisor.refuse.remote(error))

    def fail(self, error: BaseException) -> None:
        """Tell the supervisor why this rank fails."""
        reason = f"rank {self._rank} ({self._process}): {named_line(error)}"
        ray.get(self._supervisor.fail.remote(self._attempt, reason))

    def _beat_on(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            if time.monotonic() < self._patient_until:
                self._ticks += 1
            still, self._sent = self._ticks == self._sent, self._ticks
            beat = Heartbeat(
                self._attempt,
                self._rank,
                self._ticks,
                self._doing,
                self._process,
                self._stack() if still else "",
            )
            try:
                command: Command = ray.get(
                    self._supervisor.beat.remote(beat), timeout=ANSWER_SECONDS
                )
            except ray.exceptions.RayError:
                # Either the driver has ended, and this process will soon, or it will answer later.
                continue
            self.stop = command.stop
            if command.end is not None and not self._ended.is_set():
                logger.error("ending this process: %s", command.end)
                os._exit(TOLD_TO_END)

    def _stack(self) -> str:
        """Return the current calls of the training thread, innermost first."""
        frame = sys._current_frames().get(self._trained_in)
        calls = reversed(traceback.extract_stack(frame)[-FRAMES:])
        return " < ".join(f"{os.path.basename(c.filename)}:{c.lineno} {c.name}" for c in calls)
