"""Converting a dataset: what is read from the copy is what was read from the source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vrtspike.datasets.clip import read_frames, read_spikes
from vrtspike.datasets.convert import convert
from vrtspike.datasets.index import open_dataset
from vrtspike.errors import DataFormatError
from vrtspike.spikes.packed_writer import write_dat


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Return a tree in the layout of Spk-GoPro: sequences of 7 and 11 averaged frames."""
    rng = np.random.default_rng(0)
    root = tmp_path / "Spk GoPro ü"
    for split, sequence, averaged in (
        ("test", "GOPR0384_11_00", 11),
        ("train", "GOPR0372_07_00", 7),
    ):
        folder = root / split / sequence
        for kind in ("blur", "sharp", "spike"):
            (folder / kind).mkdir(parents=True)
        for name in ("000047", "000049"):
            for kind in ("blur", "sharp"):
                image = rng.integers(0, 256, (16, 32, 3), np.uint8)
                Image.fromarray(image).save(folder / kind / f"{name}.png")
            spikes = rng.random((8 * averaged, 8, 16)) < 0.3
            write_dat(folder / "spike" / f"{name}.dat", spikes)
    return root


def test_a_published_dataset_becomes_ours(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "ours"
    calls: list[tuple[int, int]] = []
    assert convert(published, out, "spk_gopro", lambda *done: calls.append(done)) == 2
    assert calls == [(1, 2), (2, 2)]
    source, copy = open_dataset(published, "spk_gopro"), open_dataset(out)
    assert copy.splits == source.splits
    for split in source.splits:
        for before, after in zip(source.clips(split), copy.clips(split), strict=True):
            assert [f.name for f in after.frames] == [f.name for f in before.frames]
            assert (after.info.timeline, after.info.spike) == (
                before.info.timeline,
                before.info.spike,
            )
            np.testing.assert_array_equal(read_spikes(after), read_spikes(before))
            for kind in ("blurred", "sharp"):
                np.testing.assert_array_equal(read_frames(after, kind), read_frames(before, kind))


def test_frames_without_spikes_stay_without(published: Path, tmp_path: Path) -> None:
    convert(published, tmp_path / "ours", "gopro")
    (clip,) = open_dataset(tmp_path / "ours").clips("train")
    assert clip.info.spike is None and len(clip.frames) == 2
    with pytest.raises(DataFormatError, match="no spikes"):
        read_spikes(clip)


def test_a_stopped_conversion_goes_on_and_a_damaged_source_is_refused(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "ours"
    stop = {"after": 1}

    def stopping(done: int, total: int) -> None:
        if done == stop["after"]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(published, out, "spk_gopro", stopping)
    with pytest.raises(DataFormatError, match="not finished"):
        open_dataset(out)
    written = (out / "test/GOPR0384_11_00/spike/000047.dat").stat().st_mtime_ns
    convert(published, out, "spk_gopro")
    assert (out / "test/GOPR0384_11_00/spike/000047.dat").stat().st_mtime_ns == written
    assert len(open_dataset(out).clips("train")) == 1
    with pytest.raises(DataFormatError, match="another dataset"):
        convert(published, out, "gopro")
    (published / "train/GOPR0372_07_00/spike/000049.dat").unlink()
    with pytest.raises(DataFormatError, match="no spike of 000049"):
        convert(published, tmp_path / "other", "spk_gopro")


def test_another_layout_than_the_folder_has_is_refused(
    published: Path, tmp_path: Path, moving_photograph: Callable[..., Path]
) -> None:
    with pytest.raises(DataFormatError, match="no sequence of this layout"):
        convert(published, tmp_path / "out", "spk_x4k_33")
    with pytest.raises(DataFormatError, match=r"looks like spk_gopro.*: set data\.layout"):
        open_dataset(published)


def test_two_sources_are_not_merged_and_a_sequence_may_lack_spikes(
    published: Path, tmp_path: Path, moving_photograph: Callable[..., Path]
) -> None:
    convert(published, tmp_path / "ours", "spk_gopro")
    published.rename(tmp_path / "elsewhere")
    with pytest.raises(DataFormatError, match="another dataset"):
        convert(tmp_path / "elsewhere", tmp_path / "ours", "spk_gopro")
    root = moving_photograph(tmp_path / "set", {"a": 3, "b": 3}, split="train")
    (root / "train" / "b" / "sequence.yaml").write_text(
        "spike: null\nsteps_per_frame: null\nexposure: null\ntarget_step: null\n"
    )
    convert(root, tmp_path / "copy", "vrtspike")
    clips = open_dataset(tmp_path / "copy").clips("train")
    assert [clip.info.spike is None for clip in clips] == [False, True]
