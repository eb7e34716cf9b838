"""Plain names: what data and settings may call a file, for such a name stays in its folder.

A path that is read from a file (a note, a manifest, a description) or made of a setting is joined
to the folder that it belongs to only if every part of it is a plain name.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

MOST_BYTES = 255
"""What disks take as a name."""


def fault_of_name(name: object) -> str | None:
    """Say why something is no plain name; None: it is one."""
    if not isinstance(name, str):
        return "it is no text"
    if not name:
        return "it is empty"
    if "/" in name:
        return "it holds a slash"
    if name.startswith("."):
        return "it begins with a dot"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return "it holds a line break or another control character"
    return fault_of_length(name)


def fault_of_length(name: str) -> str | None:
    """Say why no disk takes a name, for it is too long; None: disks do."""
    length = len(os.fsencode(name))
    return f"it has {length} bytes, {MOST_BYTES} are possible" if length > MOST_BYTES else None


def fault_of_path(path: object) -> str | None:
    """Say why something is no path of plain names, divided by slashes; None: it is one."""
    if not isinstance(path, str):
        return "it is no text"
    parts = PurePosixPath(path).parts
    faults = (fault for part in parts if (fault := fault_of_name(part)))
    return next(faults, None if parts else "it is empty")


def is_plain(name: object) -> bool:
    """Tell whether something is a plain name."""
    return fault_of_name(name) is None


def in_order(names: Iterable[str]) -> list[str]:
    """Sort frames by their names, numbers in them by value: 2 before 10."""

    def key(name: str) -> list[tuple[int, int | str]]:
        parts = re.findall(r"\d+|\D+", name)
        return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]

    return sorted(sorted(names), key=key)
