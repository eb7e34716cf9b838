"""Datasets: a folder in one of the known layouts, indexed from the list of its files.

Nothing but `dataset.yaml`, align logs and, in layouts that do not state it, the header of a
sequence's first image is read until a window of a clip is asked for. The folder may lie in an
object store (`vrtspike.storage.folder`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple

from vrtspike.config.choices import LayoutName
from vrtspike.datasets.clip import Clip, FrameFiles, Piece
from vrtspike.datasets.frame_steps import Spans, align_log_spans, frame_spans, stream_spans
from vrtspike.datasets.info import INFO_FILE, DatasetInfo, check_geometry
from vrtspike.datasets.layout import Kind, Layout, SequenceFiles
from vrtspike.datasets.layout_hints import missing_info, no_sequence
from vrtspike.datasets.layouts import layout_of
from vrtspike.errors import DataFormatError
from vrtspike.storage.folder import Folder, Stamp
from vrtspike.storage.names import in_order

ALIGN_LOG = "align.csv"
ADVICE: dict[Kind, str] = {"sharp": "deblurring is trained and measured on true sharp frames only"}
"""What to say of frames that lack a kind of file."""
MAX_GAP = 1000
"""Frames in a row that may be missing; numbers further apart are not counted frames."""
ProblemKind = Literal["empty", "missing", "extra", "gap", "stream-size", "align-log"]


class Problem(NamedTuple):
    """Something in the files' names or sizes that the layout does not allow."""

    kind: ProblemKind
    where: str
    message: str
    fix: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A dataset folder that was opened: what it holds, by split."""

    folder: Folder
    layout: Layout
    files: Mapping[str, Stamp]

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits, sorted."""
        return tuple(sorted({split for split, _ in self._groups}))

    def sequences(self, split: str) -> tuple[str, ...]:
        """Return the names of a split's sequences, sorted; none is an error."""
        names = tuple(sequence for have, sequence in self._groups if have == split)
        if not names:
            empty = split in self.folder.empty_folders()
            raise DataFormatError(
                "the split is empty" if empty else "no such split",
                where=f"{self.folder}/{split}" if empty else self.folder,
                got=None if empty else split,
                expected=f"one of {', '.join(self.splits) or 'none'}",
                fix="make the split, or set data.train_split, data.val_split or evaluation.split",
            )
        return names

    def clip(self, split: str, sequence: str) -> Clip:
        """Index one sequence; a frame that lacks a file of a kind, or a cut `.dat`, is an error."""
        clip, problems = self.inspect(split, sequence)
        for problem in problems:
            if problem.kind != "gap":
                raise DataFormatError(problem.message, where=problem.where, fix=problem.fix)
        check_geometry(clip.info, clip.where)
        return clip

    def clips(self, split: str) -> tuple[Clip, ...]:
        """Index the sequences of a split, in order of their names."""
        return tuple(self.clip(split, sequence) for sequence in self.sequences(split))

    def inspect(self, split: str, sequence: str) -> tuple[Clip, list[Problem]]:
        """Index one sequence: the frames that are whole, and what is wrong with the others."""
        files = self._groups[split, sequence]
        where = files.where(self.folder)
        info = self.layout.info(self.folder, self.files, files)
        names, problems = self._names(files, info, where)
        if any(problem.kind == "gap" for problem in problems):
            info = info.model_copy(update={"continuous": False})
        steps, more = self._steps(files, names, info)
        spans: Spans = {}
        if not more:
            spans, more = self._spans(files, names, info, steps)
        frames = tuple(
            FrameFiles(name, files.blurred.get(name), files.sharp.get(name), spans.get(name, ()))
            for name in names
            if info.spike is None or name in spans
        )
        return Clip(split, sequence, self.folder, frames, info, steps), problems + more

    def stamps(self, clip: Clip) -> list[tuple[str, int, int]]:
        """Return name, size and time of every file of a clip."""
        return [(file, *self.files[file]) for file in clip.files]

    @cached_property
    def _groups(self) -> dict[tuple[str, str], SequenceFiles]:
        return self.layout.group(self.folder, self.files)

    def _names(
        self, files: SequenceFiles, info: DatasetInfo, where: str
    ) -> tuple[list[str], list[Problem]]:
        """Return the frames that have a file of every kind, and what the others lack."""
        have: dict[Kind, set[str]] = {kind: set(files.of(kind)) for kind in self.layout.kinds}
        if info.spike is None or files.has_stream:
            have.pop("spike", None)
        if self.layout.sharp_beyond_blurred:
            have["sharp"] &= have["blurred"] | have.get("spike", set())
        every = set[str]().union(*have.values())
        if not every:
            return [], [Problem("empty", where, "the sequence holds no frame")]
        most = max(map(len, have.values()))
        problems = [
            Problem("extra", self.folder.name(file), "a second file of this frame")
            for file in files.doubled
        ]
        for kind, names in have.items():
            lacking = in_order(
                name
                for name in every - names
                if len(have) == 2 or sum(name in other for other in have.values()) > 1
            )
            if lacking and len(names) < most:
                text = f"no {kind} of {listed(lacking)} ({len(names)} of {len(every)} frames)"
                problems.append(Problem("missing", f"{where}/{kind}", text, ADVICE.get(kind)))
            others = set[str]().union(*(n for k, n in have.items() if k != kind))
            alike = len(have) == 2 and len(set(map(len, have.values()))) == 1
            if (len(have) > 2 or alike) and (only := in_order(names - others)):
                text = f"only {kind} of {listed(only)}"
                problems.append(Problem("extra", f"{where}/{kind}", text))
        if self.layout.numbered and (gaps := _gaps(every)):
            text = f"numbers without a frame: {listed(gaps)}"
            problems.append(Problem("gap", where, text))
        return in_order(set.intersection(*have.values())), problems

    def _steps(
        self, files: SequenceFiles, names: list[str], info: DatasetInfo
    ) -> tuple[dict[str, int], list[Problem]]:
        """Return the steps of each spike file that is needed, and those of a wrong size."""
        if info.spike is None:
            return {}, []
        steps, problems = {}, []
        stream = files.has_stream
        for name, file in files.spike.items():
            if not stream and name not in names:
                continue
            size = self.files[file].size
            count, rest = divmod(size, info.spike.step_bytes)
            wanted = None if stream else info.steps_per_frame
            if rest or not count or count != (wanted or count):
                text = _wrong_size(size, info, wanted)
                problems.append(Problem("stream-size", self.folder.name(file), text))
            else:
                steps[file] = count
        return steps, problems

    def _spans(
        self, files: SequenceFiles, names: list[str], info: DatasetInfo, steps: dict[str, int]
    ) -> tuple[Spans, list[Problem]]:
        """Return where each frame's steps are, and the frames whose steps are not there."""
        if info.spike is None:
            return {}, []
        if not files.has_stream:
            return frame_spans({name: files.spike[name] for name in names}, info), []
        (file,) = files.spike.values()
        if self.layout.aligned:
            log = f"{files.split}/{files.sequence}/{ALIGN_LOG}"
            try:
                with self.folder.local([log]) as local:
                    spans = align_log_spans(
                        local / log, files.sequence, file, steps[file], names, info
                    )
            except DataFormatError as error:
                return {}, [Problem("align-log", self.folder.name(log), str(error))]
        else:
            target = info.timeline.target_step
            starts = {name: self.layout.frame_index(name) - target for name in names}
            spans = stream_spans(file, steps[file], starts, info)
        gone = [name for name in spans if not _inside(spans[name], steps)]
        text = f"the stream of {steps[file]} steps does not reach over {listed(gone)}"
        problems = [Problem("stream-size", self.folder.name(file), text)] if gone else []
        return {name: span for name, span in spans.items() if name not in gone}, problems


def _inside(span: tuple[Piece, ...], steps: dict[str, int]) -> bool:
    """Tell whether pieces lie within their files."""
    return all(0 <= piece.start < piece.stop <= steps[piece.file] for piece in span)


def open_dataset(
    where: Dataset | str | os.PathLike[str], layout: LayoutName = "vrtspike"
) -> Dataset:
    """Open a dataset folder; nothing but the list of its files, and its description, is read.

    One that was opened already is not listed again.
    """
    if isinstance(where, Dataset):
        return where
    folder = Folder.at(where)
    if not folder.exists():
        raise DataFormatError(
            "no such dataset folder", where=folder, fix="simulate it, or correct data.source"
        )
    if not folder.remote and not folder.path.is_dir():
        raise DataFormatError("a dataset must be a folder", where=folder, got="a file")
    files = folder.listing()
    dataset = Dataset(folder, layout_of(layout), files)
    if layout == "vrtspike":
        if INFO_FILE not in files:
            unfinished = not folder.remote and any(folder.path.glob(".unfinished*"))
            raise missing_info(folder, files, unfinished)
        dataset.layout.info(folder, files, SequenceFiles("", ""))
    elif not dataset.splits:
        raise no_sequence(folder, files, layout)
    return dataset


def _gaps(names: set[str]) -> list[int]:
    """Return numbers that are missing between frames that are otherwise counted evenly.

    Numbers that are no multiples of one spacing apart (times, say) count nothing.
    """
    if len(names) < 3 or not all(name.isdecimal() for name in names):
        return []
    numbers = sorted(map(int, names))
    steps = [b - a for a, b in pairwise(numbers)]
    spacing = min(steps)
    if not spacing or any(step % spacing for step in steps) or max(steps) > MAX_GAP * spacing:
        return []
    return [n for a, b in pairwise(numbers) for n in range(a + spacing, b, spacing)]


def listed(items: list[str] | list[int]) -> str:
    """Name the first few of many."""
    text = ", ".join(str(item) for item in items[:5])
    return text + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def _wrong_size(size: int, info: DatasetInfo, wanted: int | None) -> str:
    """Say what a spike file's size should have been."""
    spike = info.camera
    count, rest = divmod(size, spike.step_bytes)
    got = f"{size} bytes = {count} steps" + (f" + {rest} bytes" if rest else "")
    each = f"of {spike.height}x{spike.width}, {spike.step_bytes} bytes each"
    expected = (
        f"{wanted} steps {each}, {wanted * spike.step_bytes} bytes"
        if wanted
        else f"whole steps {each}"
    )
    return f"the file holds another number of steps: got {got}, expected {expected}"
