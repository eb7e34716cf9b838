"""Files that are written whole or not at all.

In: the path of a file to write. Out: a temporary file beside it, hidden, that takes its place when
all has been written. What fails on the way (a full disk, a folder that is not there) is one
`DataFormatError` that names the file, and leaves neither a part of it nor the temporary file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from vrtspike.errors import DataFormatError, one_line
from vrtspike.storage.own_files import make_file, new_beside

TEMPORARY = ".vrtspike-"
"""How the names of temporary files begin."""
FIXES = {
    errno.ENOSPC: "free space on the disk, or write elsewhere",
    errno.EDQUOT: "free space within your quota, or write elsewhere",
    errno.ENOENT: "make the folder first, or correct the path",
    errno.EACCES: "write to a folder that is yours, or ask for permission",
    errno.EROFS: "the disk is read-only: write elsewhere",
    errno.EPERM: "write to a folder that is yours, or ask for permission",
    errno.ENAMETOOLONG: "choose shorter names",
    errno.EMFILE: "allow more open files: `ulimit -n 4096`",
    errno.ENFILE: "end other programs: the machine has too many files open",
    errno.ENOMEM: "end other programs, or take a machine with more memory",
    errno.EIO: "look at the disk: it fails to read or write",
}
"""What to do about what a system says."""


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary file, which replaces `path` unless the block fails."""
    path = Path(path)
    temporary: Path | None = None
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder has this name")
        # Not named after the file, of which the name may be as long as the disk allows.
        temporary = new_beside(path.parent, TEMPORARY, make_file)
        yield temporary
        _permit_as(path, temporary)
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or one_line(error, 160)
        raise DataFormatError(
            f"cannot write the file: {reason}", where=path, fix=FIXES.get(error.errno or 0)
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _permit_as(path: Path, temporary: Path) -> None:
    """Give a file the permissions of the one that it replaces, if there is one."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISREG(mode):
        temporary.chmod(stat.S_IMODE(mode) & 0o777)


class Sink(Protocol):
    """What a file is written to."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Append bytes."""
        ...


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one, also after a crash."""
    with atomic_stream(path) as file:
        file.write(content)


@contextmanager
def atomic_stream(path: Path) -> Iterator[Sink]:
    """Give a file to write to that takes its name, on the disk for good, when the block ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataFormatError(
            f"cannot make the folder: {error.strerror}", where=path.parent
        ) from error
    with whole_file(path) as temporary, temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
