"""Locks, notes and working folders of our own: no link is followed to them, or out of them.

Who can write where we work could put a link where our file or folder would be, and have it write,
empty or delete another one. What is made has the permissions that the user's umask leaves.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from vrtspike.errors import DataFormatError


def open_own(path: Path, flags: int) -> int:
    """Open a file of ours, made where `flags` say so, and return its descriptor.

    Raises DataFormatError for what is none: a link, a pipe, a folder, or, to be written to, a file
    that has another name, too. Raises OSError as `os.open` does.
    """
    try:
        # Not waiting for the other end of a pipe.
        opened = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _not_ours(path) from error
        raise
    status = os.fstat(opened)
    written = flags & (os.O_WRONLY | os.O_RDWR)
    if not stat.S_ISREG(status.st_mode) or (written and status.st_nlink > 1):
        os.close(opened)
        raise _not_ours(path)
    return opened


def read_own(path: Path) -> bytes:
    """Read a file of ours; errors are those of `open_own`."""
    with open(open_own(path, os.O_RDONLY), "rb") as file:
        return file.read()


def make_own_folder(path: Path) -> None:
    """Make a folder of ours, with those above it, unless it is there; a link to one is refused."""
    path.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        raise _not_ours(path)


def new_beside(folder: Path, prefix: str, make: Callable[[Path], object]) -> Path:
    """Make something new in a folder by a name that nobody can know before; return its path."""
    while True:
        path = folder / f"{prefix}{secrets.token_hex(6)}"
        try:
            make(path)
        except FileExistsError:
            continue
        return path


def make_file(path: Path) -> None:
    """Make an empty file; one that is there, and be it a link, is a FileExistsError."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))


def delete(path: Path) -> None:
    """Delete a file, a link or a folder with what is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _not_ours(path: Path) -> DataFormatError:
    """Return the error on what lies where a file or folder of ours would be."""
    return DataFormatError(
        "this is not a file or folder that vrtspike made",
        where=path,
        got="a link, or of another kind",
        fix="look where it leads, and delete it",
    )
