"""How much of the machine other processes use while something is measured (Linux).

In: a block of code. Out: the cores that were kept busy, on average, by anything but this process
and its children; one that ends within the block counts as another.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
IDLE = slice(3, 5)
"""Columns of /proc/stat in which nothing runs: idle, and waiting for a disk."""


@dataclass
class Others:
    """What other processes used."""

    cores: float = 0.0


@contextmanager
def watching_others() -> Iterator[Others]:
    """SupervisorLink while a block runs; the result is there when it has ended."""
    found = Others()
    start, busy, own = time.monotonic(), _busy_s(), _own_s()
    yield found
    used = _busy_s() - busy - (_own_s() - own)
    found.cores = max(0.0, used / (time.monotonic() - start))


def _busy_s() -> float:
    """Return the seconds that all cores have been busy."""
    ticks = [int(column) for column in (PROC / "stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - sum(ticks[IDLE])) / TICKS


def _own_s() -> float:
    """Return the CPU seconds of this process and of children that still run."""
    seconds = time.process_time()
    for child in multiprocessing.active_children():
        # After the name, which may hold anything, in parentheses: state, ..., utime, stime.
        fields = (PROC / str(child.pid) / "stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / TICKS
    return seconds
