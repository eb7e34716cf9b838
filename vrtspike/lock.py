"""Locks that hold a folder for one process of this machine."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(file: Path, taken: Exception) -> Iterator[None]:
    """Hold a lock file; raise `taken` while another process does.

    The system drops the lock when its holder ends, however it ends. Network disks without locks
    lock nothing.
    """
    with file.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise taken from None
        except OSError:
            pass
        held.write(f"{os.getpid()}\n")
        held.flush()
        yield
