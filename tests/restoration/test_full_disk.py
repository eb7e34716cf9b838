"""Where a disk is full, a clip fails in one line, and half of a file is nowhere."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.restoration.clip_files import Job, again, write_clip
from vrtspike.errors import DataFormatError
from vrtspike.evaluation.results import FrameScore, Panel, Results, Score
from vrtspike.report.evaluation import write_samples


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


def test_a_sample_of_an_evaluation_is_whole_or_not_there(
    tmp_path: Path, disk: Callable[[int], None]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    row = FrameScore("a", "000000", "blurred", Score(20.0, 0.5))
    panel = Panel("a", "000000", {"sharp": image}, {})
    results = Results(split="held_out", protocol={}, frames=[row], panels=[panel])
    disk(1000)
    with pytest.raises(DataFormatError, match=r"cannot write the file.*000000-sharp\.png"):
        write_samples(results, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    disk(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    write_samples(results, tmp_path)
    assert (tmp_path / "held_out/a/000000-sharp.png").is_file()
