"""Plain names: what data and settings may call a file, for such a name stays in its folder.

A path that is read from a file (a note, a manifest, a description) or made of a setting is joined
to the folder that it belongs to only if every part of it is a plain name.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from pathlib import PurePosixPath

_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]*$")
_DECIMAL = re.compile(
    r"(?P<before>\D*?)(?P<sign>[+-]?)"
    r"(?P<number>\d+(\.(?P<fraction>\d+))?(?P<power>[eE][+-]?\d+)?)(?P<after>\D*)"
)
_FRACTION = re.compile(r"\d\.(\d+)")
_COUNTED = re.compile(r"\d\.\d*[1-9]0+(?!\d)")
"""A fraction with a zero at its end, which no program that drops zeros writes."""
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
    """Sort frames by their names, numbers in them by value: 2 before 10.

    Names that are decimal numbers (seconds, say), alike but for these, go by those: 0.25 before
    0.5. What ends in a zero, as 1.10 behind 1.9, counts and is no decimal.
    """
    names = list(names)
    decimals = _decimals(names)
    if decimals is not None:
        return sorted(names, key=lambda name: (decimals[name], name))

    def key(name: str) -> list[tuple[int, int | str]]:
        parts = re.findall(r"\d+|\D+", name)
        return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]

    return sorted(sorted(names), key=key)


def _decimals(names: list[str]) -> dict[str, Decimal] | None:
    """Return the decimal numbers that names are, whatever stands before and after all of them."""
    found: dict[str, Decimal] = {}
    frames: set[tuple[str, str]] = set()
    is_fraction = False
    for name in names:
        match = _DECIMAL.fullmatch(_SUFFIX.sub("", name))
        if match is None:
            return None
        # Behind other letters it is a hyphen.
        before, sign = match["before"], match["sign"]
        before, sign = (before + sign, "") if before else ("", sign)
        fraction = match["fraction"] or ""
        is_fraction = is_fraction or bool(fraction or match["power"])
        found[name] = Decimal(sign + match["number"])
        frames.add((before, match["after"]))
    lengths = {len(match[1]) for name in names if (match := _FRACTION.search(name))}
    counts = len(lengths) > 1 and any(_COUNTED.search(_SUFFIX.sub("", name)) for name in names)
    return found if is_fraction and len(frames) == 1 and not counts else None
