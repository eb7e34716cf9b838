"""What is wrong with a dataset, and what was measured of it, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vrtspike.datasets.agreement import Agreement
from vrtspike.datasets.index import ProblemKind

FindingKind = Literal[
    ProblemKind,
    "layout",
    "image",
    "spikes",
    "dead-spikes",
    "blurred-is-sharp",
    "swapped-frames",
    "orientation",
    "exposure-shift",
    "target-shift",
    "brightness",
    "unrelated",
    "shared-sequence",
]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its kind, the file or folder, and what to know about it."""

    kind: FindingKind
    where: str
    message: str
    sequence: str = ""
    """Split and name of the sequence that it is about; empty if about the whole dataset."""
    facts: Mapping[str, float | int | str] = field(default_factory=dict)
    """What was measured, by name with its unit."""


@dataclass(frozen=True)
class SequenceCheck:
    """What was measured of one sequence."""

    split: str
    sequence: str
    frames: int
    """Frames that have all of their files."""
    agreement: Agreement | None
    """Spikes against frames; none where one of them is missing or cannot be read."""

    @property
    def name(self) -> str:
        """Return the sequence's name with its split."""
        return f"{self.split}/{self.sequence}"


@dataclass(frozen=True)
class Validation:
    """The outcome of a check of a dataset."""

    findings: tuple[Finding, ...]
    sequences: tuple[SequenceCheck, ...]

    @property
    def kinds(self) -> dict[str, int]:
        """Return how many findings there are of each kind, most first."""
        return dict(Counter(finding.kind for finding in self.findings).most_common())

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            "kinds": self.kinds,
            "findings": [
                {**vars(finding), "facts": dict(finding.facts)} for finding in self.findings
            ],
            "sequences": [
                {
                    "split": check.split,
                    "sequence": check.sequence,
                    "frames": check.frames,
                    **(check.agreement.facts() if check.agreement else {}),
                }
                for check in self.sequences
            ],
        }
