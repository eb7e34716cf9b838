"""The results of an evaluation: the scores of all frames and methods, their means, and pictures.

    mean over frames   every frame of the split has the same weight (tables show this mean)
    mean over clips    every sequence has the same weight, whatever its length

Both ignore metrics that a frame does not have: the first frame of a sequence has no `tdiff` or
`tlp`.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vrtspike.errors import DataFormatError
from vrtspike.evaluation.curves import Robustness
from vrtspike.evaluation.score import METRICS, PSNR_CAP, Score
from vrtspike.storage.atomic import write_atomically
from vrtspike.storage.csv_text import csv_cell

__all__ = ["METRICS", "PSNR_CAP", "FrameScore", "Image", "Panel", "Results", "Score", "write_text"]

Image = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class FrameScore:
    """The score of one method on one frame."""

    sequence: str
    frame: str
    method: str
    score: Score


@dataclass(frozen=True, eq=False)
class Panel:
    """One frame by all methods, for a picture; `images` also has the `sharp` frame."""

    sequence: str
    frame: str
    images: dict[str, Image]
    scores: dict[str, Score]


@dataclass(frozen=True, eq=False)
class Results:
    """The scores of a split, and how they were computed (`protocol`)."""

    split: str
    protocol: dict[str, Any]
    frames: list[FrameScore]
    panels: list[Panel] = field(default_factory=list)
    robustness: Robustness | None = None
    """The scores under corrupted spikes, if requested."""

    def __post_init__(self) -> None:
        if not self.frames:
            raise DataFormatError("no frame was evaluated", where=self.split)

    @property
    def methods(self) -> list[str]:
        """List the methods in the order of evaluation."""
        return list(dict.fromkeys(row.method for row in self.frames))

    @cached_property
    def sequences(self) -> list[str]:
        return list(dict.fromkeys(row.sequence for row in self.frames))

    def over_frames(self, method: str, sequence: str | None = None) -> Score:
        """Return a method's mean over all frames of the split, or of one sequence."""
        rows = self._by_method[method]
        sequences = self.sequences if sequence is None else [sequence]
        return Score.mean(score for name in sequences for score in rows.get(name, ()))

    @cached_property
    def _by_method(self) -> dict[str, dict[str, list[Score]]]:
        """Return all scores by method and sequence."""
        scores: dict[str, dict[str, list[Score]]] = {}
        for row in self.frames:
            scores.setdefault(row.method, {}).setdefault(row.sequence, []).append(row.score)
        return scores

    def over_clips(self, method: str) -> Score:
        """Return the mean of a method's means over the frames of each sequence."""
        return Score.mean(self.over_frames(method, sequence) for sequence in self.sequences)

    def as_dict(self) -> dict[str, Any]:
        """Return the contents of results.json."""
        disturbed = {} if self.robustness is None else {"robustness": self.robustness.as_dict()}
        return {
            "protocol": self.protocol,
            self.split: {name: self.over_frames(name).as_dict() for name in self.methods},
            "mean_over_clips": {name: self.over_clips(name).as_dict() for name in self.methods},
            "sequences": {
                sequence: {
                    name: self.over_frames(name, sequence).as_dict() for name in self.methods
                }
                for sequence in self.sequences
            },
            **disturbed,
        }

    def write_json(self, path: Path) -> None:
        """Write results.json: the protocol and the means."""
        write_text(path, json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n")

    def write_csv(self, path: Path) -> None:
        """Write a CSV table with a row for each frame and method."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["split", "sequence", "frame", "method", *METRICS])
        for row in self.frames:
            score = row.score.as_dict()
            numbers = ["" if score[m] is None else f"{score[m]:.6f}" for m in METRICS]
            names = (self.split, row.sequence, row.frame, row.method)
            rows.writerow([*map(csv_cell, names), *numbers])
        write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    write_atomically(path, text.encode())
