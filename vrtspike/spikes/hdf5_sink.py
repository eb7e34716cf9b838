"""A file for HDF5 to write to, which keeps the error of a full disk instead of raising it.

In: an open file. Out: a file object that h5py takes. HDF5 cannot close a file that it fails to
write: it leaves it half open, and the process crashes later. So from the first error on this sink
keeps what is written in memory, HDF5 closes as ever, and who writes looks at `error` now and then.
"""

from __future__ import annotations

import io
import os
from typing import BinaryIO


class Hdf5Sink:
    """Write to a file until that fails, and then to memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.error: OSError | None = None
        self._file = file.fileno()
        self._at = self._end = 0
        self._unwritten: list[tuple[int, bytes]] = []

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a byte."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        """Return the byte at which the next read or write starts."""
        return self._at

    def write(self, data: bytes) -> int:
        """Write all of the data."""
        rest = bytes(data)
        while rest and self.error is None:
            try:
                written = os.pwrite(self._file, rest, self._at)
            except OSError as error:
                self.error = error
            else:
                self._at, rest = self._at + written, rest[written:]
        if rest:
            self._unwritten.append((self._at, rest))
            self._at += len(rest)
        self._end = max(self._end, self._at)
        return len(data)

    def read(self, size: int) -> bytes:
        """Read what was written, wherever it is; zeros where nothing was."""
        found = bytearray(os.pread(self._file, size, self._at).ljust(size, b"\0"))
        for offset, data in self._unwritten:
            first, last = max(offset, self._at), min(offset + len(data), self._at + size)
            if first < last:
                found[first - self._at : last - self._at] = data[first - offset : last - offset]
        self._at += size
        return bytes(found)

    def truncate(self, size: int) -> int:
        """Set the length of the file."""
        if self.error is None:
            try:
                os.ftruncate(self._file, size)
            except OSError as error:
                self.error = error
        self._end = size
        return size

    def flush(self) -> None:
        """Do nothing: no written data are held back."""
