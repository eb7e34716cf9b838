"""A file object for HDF5 that stores the error of a full disk instead of raising it.

In: an open file. Out: a file object for h5py. If a write fails, HDF5 cannot close its file, and the
process crashes later. So this sink stores the first error in `error` and keeps all later data in
memory; HDF5 then closes normally. The caller must check `error` during and after writing.
"""

from __future__ import annotations

import io
import os
from typing import BinaryIO


class Hdf5Sink:
    """Write to a file; after the first error, write to memory."""

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
        """Write all of `data`; return its length."""
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
        """Read from file and memory; bytes that were never written are zero."""
        content = bytearray(os.pread(self._file, size, self._at).ljust(size, b"\0"))
        for offset, data in self._unwritten:
            first, last = max(offset, self._at), min(offset + len(data), self._at + size)
            if first < last:
                content[first - self._at : last - self._at] = data[first - offset : last - offset]
        self._at += size
        return bytes(content)

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
        """Do nothing: writes are not buffered."""
