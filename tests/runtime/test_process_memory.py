"""What is free is what the tightest limit leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from vrtspike.runtime import process_memory as heap


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [("5000", "2000", 3000), ("5000", "6000", 0), ("max", "2000", None), (None, "2000", None)],
)
def test_a_containers_limit_counts(
    limit: str | None,
    used: str,
    expected: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text(used + "\n")
    monkeypatch.setattr(heap, "CONTAINER", ((tmp_path, "memory.max", "memory.current"),))
    machine = tmp_path / "meminfo"
    machine.write_text("MemTotal: 9 kB\nMemAvailable: 4 kB\n")
    monkeypatch.setattr(heap, "MACHINE", machine)
    assert heap.free_bytes() == (4096 if expected is None else expected)


def test_this_process_takes_memory_and_never_more_than_its_peak() -> None:
    assert 10**6 < heap.resident_bytes() <= heap.peak_bytes()
