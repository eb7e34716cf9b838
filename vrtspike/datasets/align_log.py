"""Align logs: when each blurred frame was exposed, on the clock of the spike camera.

The log of earlier systems is a CSV file, one line a frame, times in seconds:

    frame_idx,t0,t1,event_count,seq
    t0, t1 = (frame -+ (e - 1) / 2) / fps         written as %.6f

with `e` the frames of the sharp video that a blurred frame averages. The interval runs from the
middle of the first averaged frame to the middle of the last: where each frame stands for 1 / fps of
light, the exposure is 1 / fps longer, half of it on each side. `exposure_steps` takes the log at
its word.

A frame without an entry is an error; there is no default interval.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vrtspike.errors import ConfigError, DataFormatError, one_line
from vrtspike.spikes.source import file_size
from vrtspike.storage.csv_table import read_table, whole_number
from vrtspike.storage.csv_text import cell_text

HEADER = ("frame_idx", "t0", "t1", "event_count", "seq")
RESOLUTION_S = 1e-6
"""Times are written to the microsecond, and so are off by up to half of one."""
MAX_STEP = 2.0**53
"""Steps up to which double precision tells one from the next."""


@dataclass(frozen=True)
class AlignEntry:
    """The exposure `[t0, t1)` of a frame, in seconds, and how many spikes fell into it."""

    sequence: str
    frame: int
    t0: float
    t1: float
    event_count: int

    def __post_init__(self) -> None:
        if fault := _fault(self):
            what, got, expected = fault
            where = f"frame {self.frame} of sequence {self.sequence!r}"
            raise DataFormatError(what, where=where, got=got, expected=expected)


@dataclass(frozen=True)
class AlignLog:
    """The entries of a log by sequence and frame, in the order of the file."""

    where: str
    sequences: dict[str, dict[int, AlignEntry]]

    def entry(self, sequence: str, frame: int) -> AlignEntry:
        """Return the entry of a frame; one that the log does not have is an error."""
        if sequence not in self.sequences:
            raise DataFormatError(
                "the align log has no such sequence",
                where=self.where,
                got=sequence,
                expected=f"one of {_some(self.sequences)}",
            )
        frames = self.sequences[sequence]
        if frame not in frames:
            raise DataFormatError(
                "the align log has no entry of this frame",
                where=self.where,
                got=f"frame {frame} of sequence {sequence}",
                expected=f"one of {_some(frames)}",
                fix="write the log again for all frames, or leave the frame out of the dataset",
            )
        return frames[frame]

    def __iter__(self) -> Iterator[AlignEntry]:
        return (entry for frames in self.sequences.values() for entry in frames.values())

    def __len__(self) -> int:
        return sum(len(frames) for frames in self.sequences.values())


def read_align_log(path: str | os.PathLike[str]) -> AlignLog:
    """Read a log, also as spreadsheets write it (`vrtspike.storage.csv_table`).

    A line that is not an entry, or a second one of the same frame, is an error.
    """
    path = Path(path)
    file_size(path, "align log")
    sequences: dict[str, dict[int, AlignEntry]] = {}
    for line, fields in read_table(path, HEADER, "align log"):
        entry = _entry(fields, f"{path}, line {line}")
        frames = sequences.setdefault(entry.sequence, {})
        if entry.frame in frames:
            raise DataFormatError(
                "the align log has a second entry of a frame",
                where=f"{path}, line {line}",
                got=f"frame {entry.frame} of sequence {entry.sequence}",
                fix="leave one of the two lines",
            )
        frames[entry.frame] = entry
    if not sequences:
        raise DataFormatError("the align log has no entry", where=path)
    return AlignLog(str(path), sequences)


def exposure_steps(entry: AlignEntry, rate_hz: float, offset_steps: int = 0) -> tuple[int, int]:
    """Return the half-open steps of an exposure, `[round(t0 * rate), round(t1 * rate))`, shifted.

    A time that lies half-way between two steps, as far as microseconds tell, counts for the later
    one, so that equal exposures have equally many steps.
    """
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise ConfigError("rate_hz must be positive and finite", got=rate_hz)
    # Half the log's resolution in steps, where that is small; at higher rates it would be a bias.
    slack = min(RESOLUTION_S / 2 * rate_hz * (1 + 1e-6), 0.25)
    if not entry.t1 * rate_hz < MAX_STEP:
        raise DataFormatError(
            "the times lie beyond any stream",
            where=f"frame {entry.frame} of sequence {entry.sequence}",
            got=f"[{entry.t0:g}, {entry.t1:g}) s at {rate_hz:g} steps a second",
            expected="seconds from the stream's start",
        )
    start, stop = (math.floor(t * rate_hz + 0.5 + slack) for t in (entry.t0, entry.t1))
    if start >= stop:
        raise DataFormatError(
            "the exposure is shorter than a step",
            where=f"frame {entry.frame} of sequence {entry.sequence}",
            got=f"[{entry.t0:.6f}, {entry.t1:.6f}) s at {rate_hz:g} steps a second",
            fix="correct the rate of the spike camera",
        )
    return start + offset_steps, stop + offset_steps


def _entry(fields: list[str], where: str) -> AlignEntry:
    """Read one line."""
    frame, t0, t1, count, sequence = fields
    try:
        if "_" in "".join(fields[:4]):
            raise ValueError("not a number: Python's 1_000 is no notation of CSV files")
        values = whole_number(frame), float(t0), float(t1), whole_number(count)
    except ValueError as error:
        raise DataFormatError(
            "the line is no entry",
            where=where,
            got=",".join(fields)[:200],
            expected=one_line(error, 200),
            fix="write the frame's number, two times in seconds and a count, with a decimal point",
        ) from error
    try:
        return AlignEntry(cell_text(sequence), *values)
    except DataFormatError as error:
        raise DataFormatError(
            error.what, where=where, got=error.got, expected=error.expected
        ) from error


def _fault(entry: AlignEntry) -> tuple[str, str, str] | None:
    """Return what is wrong with an entry: what, got, expected."""
    times = f"[{entry.t0}, {entry.t1})"
    if not entry.sequence:
        return "the entry names no sequence", "an empty name", "a name"
    if entry.frame < 0:
        return "the frame's number is negative", str(entry.frame), "0 or more"
    if not (math.isfinite(entry.t0) and math.isfinite(entry.t1)) or entry.t0 < 0:
        return "times must be finite and not negative", times, "seconds from the stream's start"
    if entry.t1 <= entry.t0:
        return "the exposure is empty", times, "t0 < t1"
    if entry.event_count < 0:
        return "the number of events is negative", str(entry.event_count), "0 or more"
    return None


def _some(names: Iterable[object], most: int = 5) -> str:
    """List the first names."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (", ..." if len(texts) > most else "")
