"""Weights of our own that ship with the package, taken by name; PROVENANCE.md says how they came
to be.

In: a name, such as `small` (with spikes), `small-no-spike`, or `flow` (a flow network alone, to
start training from). Out: the file of that name, an export that holds its configuration.

A name is a plain word. Of a run folder or a file that is called the same, write a path: `./small`.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

FOLDER = Path(str(files(__name__)))
SUFFIX = ".safetensors"
DEFAULT, WITHOUT_SPIKES = "small", "small-no-spike"
"""What restores where nobody says otherwise, and what does without spikes."""
FLOW = "flow"
"""What is no model, and restores nothing."""


def names() -> tuple[str, ...]:
    """Return the names of all weights that are there."""
    return tuple(sorted(file.stem for file in FOLDER.glob(f"*{SUFFIX}")))


def packaged(name: str | os.PathLike[str] | None) -> Path | None:
    """Return the file of the weights of that name, or None where there are none: the texts
    `./small` and `small.safetensors`, and every `Path`, are places, never names."""
    return FOLDER / f"{name}{SUFFIX}" if isinstance(name, str) and name in names() else None


def or_by_name(fix: str, *, models: bool = False) -> str:
    """Add the names that there are to the advice of an error; `models` leaves out the rest."""
    known = [name for name in names() if not (models and name == FLOW)]
    return f"{fix}, or take packaged weights: {', '.join(known)}"
