"""Which steps of which spike file belong to a frame.

Three ways to store a sequence's stream: a file for each frame, whose steps follow one another; one
file for the sequence, in which the frame's name says the instant; and one file with an align log
that gives each frame's exposure in seconds. A time offset moves all frames along the stream; a
frame that it moves beyond an end is left out. A frame that lies outside without any offset keeps
its place there, for the caller to report.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from vrtspike.datasets.align_log import exposure_steps, read_align_log
from vrtspike.datasets.clip import Piece
from vrtspike.datasets.info import DatasetInfo
from vrtspike.errors import DataFormatError

logger = logging.getLogger(__name__)

Spans = dict[str, tuple[Piece, ...]]


def frame_spans(files: Mapping[str, str], info: DatasetInfo) -> Spans:
    """Return the pieces of each frame, in order of the frames, that has a file of its own."""
    length, offset = info.timeline.steps_per_frame, info.camera.time_offset_steps
    ordered = list(files.items())
    if not offset:
        return {name: (Piece(file, 0, length),) for name, file in ordered}
    if not info.continuous:
        raise DataFormatError(
            "frames whose streams do not follow one another cannot be moved in time",
            got=f"time_offset_steps {offset}",
            expected="0",
            fix="move the exposure and the target step instead",
        )
    spans: Spans = {}
    for index, (name, _) in enumerate(ordered):
        start = index * length + offset
        stop = start + length
        if start >= 0 and stop <= len(ordered) * length:
            spans[name] = tuple(
                Piece(
                    ordered[number][1],
                    max(start - number * length, 0),
                    min(stop - number * length, length),
                )
                for number in range(start // length, -(-stop // length))
            )
    return _kept(spans, len(ordered), info, f"{len(ordered) * length} steps of {len(files)} files")


def stream_spans(file: str, steps: int, starts: Mapping[str, int], info: DatasetInfo) -> Spans:
    """Return the piece of one stream of so many steps that starts at each frame's first step."""
    length, offset = info.timeline.steps_per_frame, info.camera.time_offset_steps

    def inside(start: int) -> bool:
        return 0 <= start <= steps - length

    spans: Spans = {
        name: (Piece(file, start + offset, start + offset + length),)
        for name, start in starts.items()
        if inside(start + offset) or not inside(start)
    }
    return _kept(spans, len(starts), info, f"{steps} steps of {file}")


def align_log_spans(
    path: Path, sequence: str, file: str, steps: int, names: Sequence[str], info: DatasetInfo
) -> Spans:
    """Return the piece of one stream around the exposure that a log gives for each frame.

    The log numbers the frames from 0 in the order of their names. Its exposures may be longer or
    shorter than the declared one by the rounding of a step at both ends.
    """
    log = read_align_log(path)
    timeline, rate = info.timeline, info.camera.rate_hz
    starts = {}
    for number, name in enumerate(names):
        first, last = exposure_steps(log.entry(sequence, number), rate)
        if abs(last - first - timeline.exposure_steps) > 2:
            raise DataFormatError(
                "the align log has another exposure than dataset.yaml",
                where=f"{path}, frame {number}",
                got=f"{last - first} steps",
                expected=f"{timeline.exposure_steps} steps at {rate:g} Hz",
                fix="correct rate_hz or exposure in dataset.yaml",
            )
        middle = (first + last - timeline.exposure_steps) // 2
        starts[name] = middle - timeline.exposure[0]
    if (entries := len(log.sequences.get(sequence, {}))) != len(names):
        raise DataFormatError(
            "the align log has another number of frames than the sequence",
            where=path,
            got=f"{entries} entries of sequence {sequence}",
            expected=f"{len(names)}, the frames with all of their files",
            fix="add the missing frames, or write the log again for those that are there",
        )
    return stream_spans(file, steps, starts, info)


def _kept(spans: Spans, frames: int, info: DatasetInfo, stream: str) -> Spans:
    """Say how many frames a time offset leaves; none is an error."""
    offset = info.camera.time_offset_steps
    if not spans and frames:
        raise DataFormatError(
            "the time offset moves every frame out of the stream",
            got=f"time_offset_steps {offset}",
            expected=f"less than the {stream}",
        )
    if len(spans) < frames:
        logger.info(
            "%d of %d frames lie in the stream moved by %d steps", len(spans), frames, offset
        )
    return spans
