"""What restoring changes in its process is set back after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave this process' heap alone, and the number of its threads as it was."""
    monkeypatch.setattr("vrtspike.restoration.segment_worker.keep_heap", lambda: None)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
