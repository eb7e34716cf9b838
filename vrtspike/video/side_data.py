"""What FFmpeg attaches to decoded frames: how they are to be turned.

PyAV raises ValueError for every side datum of a frame as soon as one is of a kind that its
enumeration lacks (EXIF in 18.1). Importing this module lets the enumeration make a member of any
number, so that other kinds are passed over.
"""

from __future__ import annotations

from typing import Any

import av
from av.sidedata.sidedata import Type


def _unknown_kind(cls: type[Type], number: object) -> Type:
    """Return a member for a number that has no name."""
    member: Any = object.__new__(cls)
    member._name_, member._value_ = f"KIND_{number}", number
    return member  # type: ignore[no-any-return]


Type._missing_ = classmethod(_unknown_kind)  # type: ignore[assignment, method-assign]


def display_matrix(frame: av.VideoFrame) -> bytes | None:
    """Return the bytes of a frame's display matrix, or None where it has none."""
    found = frame.side_data.get("DISPLAYMATRIX")
    return None if found is None else memoryview(found).tobytes()  # type: ignore[arg-type]
