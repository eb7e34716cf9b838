"""A rank's link to the run's supervisor: signs of life up, requests down.

The training loop ticks whenever it gets on. A thread sends the count twice a second and hears
whether to stop. When the supervisor finds that the run hangs, or another rank cannot go on, every
rank that still can ends its process at once; collectives have no other way out.
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
"""How long a beat waits for the supervisor before it is sent again."""
TOLD_TO_END = 70
"""Exit status of a process that the supervisor told to end."""
FRAMES = 3
"""Innermost frames of the training thread that a beat tells."""


class SupervisorLink:
    """Count a rank's signs of life, and keep in touch with the supervisor."""

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
        """Whether the driver has asked for the end."""

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def close(self) -> None:
        """Stop beating; wait until what was posted has arrived."""
        self._ended.set()
        if self._posted is not None:
            ray.wait([self._posted], timeout=ANSWER_SECONDS)

    def tick(self, doing: str | None = None) -> None:
        """Give a sign of life; from now on the rank is `doing` something."""
        self._ticks += 1
        self._doing = doing or self._doing

    @contextmanager
    def patient(self, doing: str, seconds: float) -> Iterator[None]:
        """Give signs of life all through a block, for so long at most."""
        self.tick(doing)
        self._patient_until = time.monotonic() + seconds
        try:
            yield
        finally:
            self._patient_until = 0.0

    def post(self, record: Record) -> None:
        """Send a record to the driver; nothing waits for it."""
        self._posted = self._supervisor.post.remote(record)

    def warn(self, text: str) -> None:
        """Have the driver tell the user something."""
        self._supervisor.warn.remote(text)

    def refuse(self, error: VrtSpikeError) -> None:
        """Tell the driver of an error of ours that ends the run."""
        ray.get(self._supervisor.refuse.remote(error))

    def fail(self, error: BaseException) -> None:
        """Tell the supervisor why this rank fails."""
        told = f"rank {self._rank} ({self._process}): {named_line(error)}"
        ray.get(self._supervisor.fail.remote(self._attempt, told))

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
                # The driver is gone, and this process soon; or a moment's trouble.
                continue
            self.stop = command.stop
            if command.end is not None and not self._ended.is_set():
                logger.error("ending this process: %s", command.end)
                os._exit(TOLD_TO_END)

    def _stack(self) -> str:
        """Return where the training thread is, innermost call first."""
        frame = sys._current_frames().get(self._trained_in)
        calls = reversed(traceback.extract_stack(frame)[-FRAMES:])
        return " < ".join(f"{os.path.basename(c.filename)}:{c.lineno} {c.name}" for c in calls)
