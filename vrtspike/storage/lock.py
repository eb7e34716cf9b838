"""Locks that hold a folder for one process of this machine; each is an open file."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vrtspike.storage.own_files import open_own


@contextmanager
def locked(file: Path, taken: Exception) -> Iterator[None]:
    """Hold a lock file; raise `taken` while another process does.

    The system drops the lock when its holder ends, however it ends. Network disks without locks
    lock nothing. Nothing is written to the file, and a link to another one is not followed.
    """
    with open(open_own(file, os.O_RDWR | os.O_CREAT), "rb+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise taken from None
        except OSError:
            pass
        yield


def allow_open_files() -> None:
    """Let this process have as many files open as the system allows it at most."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
