"""What `vrtspike validate` finds wrong with a dataset folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vrtspike.datasets.findings import Finding
from vrtspike.datasets.index import open_dataset
from vrtspike.datasets.validate import check_dataset


def validate(root: Path, progress: Callable[[int, int], None] | None = None) -> list[Finding]:
    """Return the findings on a dataset of our own layout."""
    return list(check_dataset(open_dataset(root), progress).findings)
