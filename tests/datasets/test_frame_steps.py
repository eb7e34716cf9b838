"""Which steps belong to a frame: own files, one stream, align logs, and offsets in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.datasets.align_logs import write_align_log
from tests.datasets.layout_trees import WRITERS, Scene, Tree
from vrtspike.datasets.align_log import AlignEntry, AlignLog, read_align_log
from vrtspike.datasets.clip import Piece
from vrtspike.datasets.frame_steps import align_log_spans, frame_spans, stream_spans
from vrtspike.datasets.index import open_dataset
from vrtspike.datasets.info import DatasetInfo, FrameInfo, SpikeInfo
from vrtspike.errors import DataFormatError
from vrtspike.storage.names import in_order


def info(offset: int = 0, **changes: Any) -> DatasetInfo:
    """Return a description of 10 steps a frame, of which [2, 8) are exposed."""
    values: dict[str, Any] = {
        "spike": SpikeInfo(height=4, width=8, rate_hz=1000, threshold=2, time_offset_steps=offset),
        "frame": FrameInfo(height=8, width=16),
        "steps_per_frame": 10,
        "exposure": (2, 8),
        "target_step": 5,
        "source": "a test",
    }
    return DatasetInfo.model_validate(values | changes)


FILES = {name: f"{name}.dat" for name in "abc"}


def naive(offset: int) -> dict[str, list[tuple[str, int]]]:
    """Return file and step of each of a frame's steps, frames that stay in the stream only."""
    stream = [(file, step) for file in FILES.values() for step in range(10)]
    return {
        name: stream[10 * i + offset : 10 * i + offset + 10]
        for i, name in enumerate(FILES)
        if 0 <= 10 * i + offset <= len(stream) - 10
    }


@pytest.mark.parametrize("offset", [-20, -13, -10, -1, 0, 1, 9, 10, 11, 20])
def test_files_of_frames_are_one_stream_that_an_offset_moves(offset: int) -> None:
    spans = frame_spans(FILES, info(offset))
    found = {
        name: [(piece.file, step) for piece in pieces for step in range(piece.start, piece.stop)]
        for name, pieces in spans.items()
    }
    assert found == naive(offset)
    assert all(piece.start < piece.stop for pieces in spans.values() for piece in pieces)


@pytest.mark.parametrize("offset", [-21, 21, 1000])
def test_an_offset_that_leaves_no_frame_is_refused(offset: int) -> None:
    with pytest.raises(DataFormatError, match=f"every frame out.*time_offset_steps {offset}"):
        frame_spans(FILES, info(offset))
    with pytest.raises(DataFormatError, match=r"every frame out.*30 steps of spike\.dat"):
        stream_spans("spike.dat", 30, {"a": 0, "b": 20}, info(offset))


def test_frames_of_separate_streams_cannot_be_moved() -> None:
    assert frame_spans(FILES, info(continuous=False))["b"] == (Piece("b.dat", 0, 10),)
    with pytest.raises(DataFormatError, match="do not follow one another"):
        frame_spans(FILES, info(3, continuous=False))


def test_frames_of_one_stream_are_moved_together() -> None:
    starts = {"a": 0, "b": 7, "c": 20}
    assert stream_spans("s", 30, starts, info()) == {
        name: (Piece("s", start, start + 10),) for name, start in starts.items()
    }
    assert stream_spans("s", 30, starts, info(-7)) == {
        "b": (Piece("s", 0, 10),),
        "c": (Piece("s", 13, 23),),
    }
    assert set(stream_spans("s", 30, starts, info(4))) == {"a", "b"}


def test_a_frame_that_was_never_in_the_stream_is_kept_for_the_report() -> None:
    spans = stream_spans("s", 30, {"a": -5, "b": 10, "c": 25}, info(2))
    assert spans["a"] == (Piece("s", -3, 7),)
    assert spans["c"] == (Piece("s", 27, 37),)


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["10", "9", "1"], ["1", "9", "10"]),
        (["f10.b", "f2", "f10", "f2.a"], ["f2", "f2.a", "f10", "f10.b"]),
        (["0001_002", "0002", "0001", "0001_000"], ["0001", "0001_000", "0001_002", "0002"]),
        (["a", "1", "ü", "01"], ["01", "1", "a", "ü"]),
    ],
)
def test_numbers_in_names_count_by_value(names: list[str], ordered: list[str]) -> None:
    assert in_order(names) == ordered


def write_log(path: Path, exposures: list[tuple[float, float]]) -> Path:
    entries = [AlignEntry("straße", i, t0, t1, 5) for i, (t0, t1) in enumerate(exposures)]
    write_align_log(path / "align.csv", entries)
    return path / "align.csv"


def test_a_log_places_the_declared_exposure_around_each_logged_one(tmp_path: Path) -> None:
    # 6 steps are declared: [2, 8) of 10. Logged are 6, then 7 and 4 steps, around the same middle.
    path = write_log(tmp_path, [(0.012, 0.018), (0.022, 0.029), (0.043, 0.047)])
    spans = align_log_spans(path, "straße", "s", 60, ["a", "b", "c"], info())
    assert [span[0].start for span in spans.values()] == [10, 20, 40]
    spans = align_log_spans(path, "straße", "s", 60, ["a", "b", "c"], info(3))
    assert [span[0].start for span in spans.values()] == [13, 23, 43]


def test_a_log_of_other_exposures_or_other_frames_is_refused(tmp_path: Path) -> None:
    path = write_log(tmp_path, [(0.012, 0.018), (0.022, 0.042)])
    with pytest.raises(DataFormatError, match=r"another exposure.*frame 1.*got 20 steps.*6 steps"):
        align_log_spans(path, "straße", "s", 60, ["a", "b"], info())
    path = write_log(tmp_path, [(0.012, 0.018), (0.022, 0.028)])
    with pytest.raises(DataFormatError, match=r"no entry of this frame.*frame 2"):
        align_log_spans(path, "straße", "s", 60, ["a", "b", "c"], info())
    with pytest.raises(DataFormatError, match="no such sequence"):
        align_log_spans(path, "strasse", "s", 60, ["a"], info())
    with pytest.raises(DataFormatError, match=r"another number of frames.*got 2.*expected 1"):
        align_log_spans(path, "straße", "s", 60, ["a"], info())


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Return a dataset with align logs."""
    return WRITERS["align_late"](tmp_path, scene=Scene(frame=(16, 32)))


def test_logs_that_were_written_are_read_back(tree: Tree) -> None:
    log: AlignLog = read_align_log(tree.root / "val" / "zwei ü" / "align.csv")
    assert [(e.frame, e.t0, e.t1) for e in log] == [
        (i, pytest.approx((29 + 47 * i) / 1000), pytest.approx((61 + 47 * i) / 1000))
        for i in range(4)
    ]


def test_a_frame_without_an_entry_or_a_log_is_an_error(tree: Tree) -> None:
    path = tree.root / "train" / "eins" / "align.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(DataFormatError, match=r"no entry of this frame.*frame 3.*align\.csv"):
        open_dataset(tree.root).clips("train")
    path.unlink()
    with pytest.raises(DataFormatError, match=r"no such align log"):
        open_dataset(tree.root).clips("train")


def test_a_stream_that_does_not_reach_over_the_log_is_named(tree: Tree) -> None:
    path = tree.root / "train" / "eins" / "spike.dat"
    path.write_bytes(path.read_bytes()[: 16 * 120])
    with pytest.raises(DataFormatError, match=r"stream of 120 steps .* f2, f3.*spike\.dat"):
        open_dataset(tree.root).clips("train")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataFormatError, match=r"119 steps \+ 13 bytes"):
        open_dataset(tree.root).clips("train")


def test_a_rate_that_is_not_the_log_s_is_noticed(tree: Tree) -> None:
    path = tree.root / "dataset.yaml"
    values = yaml.safe_load(path.read_text())
    values["spike"]["rate_hz"] = 2000
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(DataFormatError, match=r"another exposure.*got 64 steps.*32 steps at 2000"):
        open_dataset(tree.root).clips("train")
