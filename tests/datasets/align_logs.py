"""Writing align logs as earlier systems wrote them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from vrtspike.datasets.align_log import HEADER, AlignEntry


def centered(
    sequence: str, frame: int, *, averaged: int, fps: float, event_count: int
) -> AlignEntry:
    """Return the entry of a blurred frame that averages `averaged` frames around `frame`."""
    half = (averaged - 1) / 2
    return AlignEntry(sequence, frame, (frame - half) / fps, (frame + half) / fps, event_count)


def write_align_log(path: Path, entries: Iterable[AlignEntry]) -> None:
    """Write a log in the order of the entries."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for e in entries:
            writer.writerow((e.frame, f"{e.t0:.6f}", f"{e.t1:.6f}", e.event_count, e.sequence))
