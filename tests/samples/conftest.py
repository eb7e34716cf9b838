"""Prepared shards without Ray: the same tasks, run in the test's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vrtspike.samples import prepare as module
from vrtspike.samples.plan import Job
from vrtspike.samples.shards import Manifest
from vrtspike.storage.folder import Folder


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Manifest]:
    """Return `prepare` with the defaults of a small dataset and without Ray."""

    def run_here(jobs: list[Job], shards: Folder) -> Iterator[dict[str, Any]]:
        for number in range(len(jobs)):
            yield module._prepare_numbered({"number": number}, jobs, shards)

    monkeypatch.setattr(module, "_run", run_here)

    def run(source: Path, shards: Path, **changes: Any) -> Manifest:
        settings = {
            "frames": 3,
            "stride": 1,
            "tile": None,
            "shard_samples": 2,
            "splits": ("train", "val"),
        }
        return module.prepare(source, shards, **(settings | changes))

    return run


@pytest.fixture
def source(tmp_path: Path, moving_photograph: Callable[..., Path]) -> Path:
    """Return a dataset of two training sequences (5 and 4 frames of 40x48) and one of 4 frames."""
    root = tmp_path / "source"
    moving_photograph(root, {"a": 5, "b ü": 4}, split="train")
    return moving_photograph(root, {"c": 4}, split="val")
