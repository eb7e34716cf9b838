"""The interface between a stream and the file or array that contains its spikes.

A source knows its shape `(s, h, w)` and reads boxes: a range of steps of a rectangle of the
picture. Rows always count from the top, in whatever order the file stores them.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool

from vrtspike.errors import DataFormatError, one_line


class Box(NamedTuple):
    """A rectangle of the picture, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def stored_rows(self, full_height: int, flip: bool) -> slice:
        """Return the stored rows of the box; `flip`: the bottom row is stored first."""
        first = full_height - self.top - self.height if flip else self.top
        return slice(first, first + self.height)


class SpikeSource(Protocol):
    """A file or array of spikes that can be read in part."""

    @property
    def path(self) -> Path | None:
        """Return the file, or None if the spikes are in memory."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (steps, height, width)."""

    def read(self, start: int, stop: int, box: Box) -> Bool[np.ndarray, "s h w"]:
        """Read the steps `[start, stop)` of a box; both must be inside the stream."""


def file_size(path: Path, what: str = "spike file") -> int:
    """Return the size of a file in bytes; raise DataFormatError if it is missing, empty or no file.

    `what` names the kind of file in the error.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataFormatError(f"no such {what}", where=path) from error
    except OSError as error:
        raise unreadable(path, error, what) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or pipe"
        raise DataFormatError(f"the {what} must be a file", where=path, got=kind)
    if status.st_size == 0:
        raise DataFormatError(
            f"the {what} is empty", where=path, got="0 bytes", fix="copy or record the file again"
        )
    return status.st_size


def unreadable(path: Path, error: Exception, what: str = "spike file") -> DataFormatError:
    """Return the error for a file that cannot be read; `error` is the reason."""
    reason = getattr(error, "strerror", None) or str(error)
    return DataFormatError(
        f"cannot read the {what}",
        where=path,
        got=one_line(reason, 200),
        fix="give yourself permission to read it"
        if isinstance(error, PermissionError)
        else "copy the file again if it was cut off, and check that its suffix is right",
    )
