"""What a dataset layout is: patterns that tell which file of a folder is what.

In: the names of the files of a folder. Out: the files of each sequence, by kind and frame. The
layouts of the field are in `vrtspike.datasets.layouts`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from vrtspike.datasets.info import DatasetInfo
from vrtspike.storage.folder import Folder, Stamp
from vrtspike.video.image_file import IMAGE_SUFFIXES

Kind = Literal["blurred", "sharp", "spike"]


STREAM = ""
"""Name of a spike file that holds a whole sequence."""


_TERMS = {
    "split": r"(?P<split>[^/]+)",
    "prefix": r"(?P<split>[^/]+?)",
    "sequence": r"(?P<sequence>[^/]+)",
    "clip": r"(?P<sequence>.+)",
    "name": r"(?P<name>[^/]+)",
    "image": f"(?i:{'|'.join(suffix[1:] for suffix in IMAGE_SUFFIXES)})",
}


@dataclass(frozen=True)
class SequenceFiles:
    """The files of a sequence: of each kind, by the frame's name."""

    split: str
    sequence: str
    blurred: dict[str, str] = field(default_factory=dict)
    sharp: dict[str, str] = field(default_factory=dict)
    spike: dict[str, str] = field(default_factory=dict)
    doubled: tuple[str, ...] = ()
    """Further files of a frame that has one already, such as `0.jpg` beside `0.png`."""

    @property
    def has_stream(self) -> bool:
        """Tell whether one spike file holds the whole sequence."""
        return set(self.spike) == {STREAM}

    def where(self, folder: Folder) -> str:
        """Name the sequence in messages."""
        return f"{folder}/{self.split}/{self.sequence}"

    def of(self, kind: Kind) -> dict[str, str]:
        """Return the files of a kind."""
        files: dict[str, str] = getattr(self, kind)
        return files


Groups = dict[tuple[str, str], SequenceFiles]
"""The sequences of a dataset, by split and name."""


class Layout(ABC):
    """A layout whose frames have a file of each kind, of the same name."""

    sharp_beyond_blurred = False
    """There are sharp frames of other instants, too."""
    numbered = False
    """Names that are numbers count the frames without a gap."""
    aligned = False
    """A stream of a whole sequence has an align log beside it; else names say the instants."""

    def __init__(self, **patterns: str | tuple[str, ...]) -> None:
        self._patterns: dict[str, list[re.Pattern[str]]] = {
            kind: [_compile(p) for p in ([given] if isinstance(given, str) else given)]
            for kind, given in patterns.items()
        }
        self.kinds: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind in patterns)
        """What a frame consists of."""

    def group(self, folder: Folder, files: Iterable[str]) -> Groups:
        """Sort files into sequences by split and name; those of no pattern are left out."""
        found: dict[tuple[str, str], dict[str, dict[int, dict[str, str]]]] = {}
        doubled: dict[tuple[str, str], list[str]] = defaultdict(list)
        for file in files:
            for kind, patterns in self._patterns.items():
                for rank, pattern in enumerate(patterns):
                    if match := pattern.fullmatch(file):
                        terms = match.groupdict()
                        key = (terms["split"], terms["sequence"].replace("/", "_"))
                        kinds = found.setdefault(key, defaultdict(lambda: defaultdict(dict)))
                        name = terms.get("name", STREAM)
                        if kinds[kind][rank].setdefault(name, file) != file:
                            doubled[key].append(file)
        return {
            key: SequenceFiles(
                *key,
                blurred=_first(kinds.get("blurred")),
                sharp=_first(kinds.get("sharp")),
                spike=_first(kinds.get("spike")),
                doubled=tuple(doubled[key]),
            )
            for key, kinds in sorted(found.items())
        }

    @abstractmethod
    def info(
        self, folder: Folder, files: Mapping[str, Stamp], sequence: SequenceFiles
    ) -> DatasetInfo:
        """Return what is known of a sequence; may read a header, never a pixel."""

    def frame_index(self, name: str) -> int:
        """Return the step of the sequence's stream that a frame's name stands for."""
        raise NotImplementedError


def _first(ranks: dict[int, dict[str, str]] | None) -> dict[str, str]:
    """Return the files of the first pattern that fits any."""
    return ranks[min(ranks)] if ranks else {}


def _compile(pattern: str) -> re.Pattern[str]:
    """Turn a pattern with terms in braces into a regular expression over whole names."""
    parts = re.split(r"\{(\w+)\}", pattern)
    text = "".join(
        _TERMS[part] if i % 2 else part.replace(".", r"\.") for i, part in enumerate(parts)
    )
    return re.compile(text)
