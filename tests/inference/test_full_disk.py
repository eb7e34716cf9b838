"""Where a disk is full, a clip fails in one line, and half of a file is nowhere."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.inference.clip_files import Job, again, write_clip


@pytest.fixture
def disk() -> Iterator[Callable[[int], None]]:
    """Return a function that lets no file grow beyond some bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("out", "most", "what"),
    # Notes are smaller, images of noise larger; images smaller, shares of float32 larger; a video.
    [("out", 1000, "png"), ("out", 3000, "npy"), ("out.mp4", 8000, "out.mp4")],
)
def test_a_clip_fails_in_one_line_and_goes_on_when_there_is_room(
    tmp_path: Path, disk: Callable[[int], None], out: str, most: int, what: str
) -> None:
    clip = write_clip(tmp_path, 25)
    job = Job(clip.place, clip.stream, tmp_path / out)
    disk(most)
    (result,) = job.run()
    assert result.state == "failed" and "\n" not in str(result.error)
    assert "cannot write the file: File too large" in str(result.error)
    assert f"{what}]" in str(result.error)
    assert not (tmp_path / out).exists()
    assert not list(tmp_path.rglob(".vrtspike-*")), "no temporary file is left"
    disk(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    assert again(job).run()[0].state == "done"
