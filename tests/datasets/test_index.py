"""Dataset folders: what was written is what is read, and what is wrong is said."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from vrtspike.datasets.clip import read_frames, read_spikes
from vrtspike.datasets.index import open_dataset
from vrtspike.datasets.info import DatasetInfo, FrameInfo, SpikeInfo, read_info, write_info
from vrtspike.errors import ConfigError, DataFormatError


@pytest.fixture
def root(tmp_path: Path, moving_photograph: Callable[..., Path]) -> Path:
    """Return a dataset with two sequences, of 3 and 2 frames of 40x48."""
    return moving_photograph(tmp_path / "set", {"b": 3, "a": 2}, split="train")


def info(**changes: object) -> DatasetInfo:
    """Return a description of a small dataset."""
    values: dict[str, object] = {
        "spike": SpikeInfo(height=4, width=8, rate_hz=1000, threshold=2),
        "frame": FrameInfo(height=8, width=16),
        "steps_per_frame": 10,
        "exposure": (0, 8),
        "target_step": 4,
        "source": "a test",
    }
    return DatasetInfo.model_validate(values | changes)


def test_clips_are_indexed_in_order_and_read_in_windows(root: Path) -> None:
    dataset = open_dataset(root)
    assert dataset.splits == ("train",)
    first, second = dataset.clips("train")
    assert (first.sequence, len(first.frames)) == ("a", 2)
    assert [frame.name for frame in second.frames] == ["000000", "000001", "000002"]
    frames, spikes = read_frames(second, "sharp"), read_spikes(second)
    assert (frames.shape, frames.dtype) == ((3, 40, 48, 3), np.uint8)
    assert (spikes.shape, spikes.dtype) == ((3, 64, 40, 48), np.bool_)
    np.testing.assert_array_equal(read_frames(second, "sharp", 1, 3), frames[1:])
    np.testing.assert_array_equal(read_spikes(second, 1, 2), spikes[1:2])
    assert not np.array_equal(read_frames(second, "blurred"), frames)
    with pytest.raises(DataFormatError, match="no such frames"):
        read_frames(second, "sharp", 2, 4)


def test_a_clip_is_small_and_travels(root: Path) -> None:
    clip = open_dataset(root).clips("train")[0]
    data = pickle.dumps(clip)
    assert len(data) < 2000
    assert pickle.loads(data) == clip


def test_the_description_reads_back(tmp_path: Path) -> None:
    original = info(source="Zürich: a, [b]")
    write_info(tmp_path / "dataset.yaml", original)
    assert read_info(tmp_path / "dataset.yaml") == original


def test_blur_stands_in_for_blurred(root: Path) -> None:
    clip = open_dataset(root).clips("train")[0]
    before = read_frames(clip, "blurred")
    folder = root / "train" / clip.sequence
    (folder / "blurred").rename(folder / "blur")
    np.testing.assert_array_equal(
        read_frames(open_dataset(root).clips("train")[0], "blurred"), before
    )


@pytest.mark.parametrize(
    ("frame", "scale"), [((4, 8), 1), ((8, 16), 2), ((8, 8), None), ((6, 12), None), ((2, 4), None)]
)
def test_the_spike_scale_is_an_integer_or_nothing(
    frame: tuple[int, int], scale: int | None
) -> None:
    assert info(frame=FrameInfo(height=frame[0], width=frame[1])).spike_scale == scale


def test_missing_folders_files_and_splits_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="no such dataset folder"):
        open_dataset(tmp_path / "none")
    with pytest.raises(DataFormatError, match="must be a folder"):
        open_dataset(root / "dataset.yaml")
    with pytest.raises(DataFormatError, match=r"no such split.*got test, expected one of train"):
        open_dataset(root).clips("test")
    (root / "test").mkdir()
    with pytest.raises(DataFormatError, match="split is empty"):
        open_dataset(root).clips("test")
    (root / "dataset.yaml").unlink()
    with pytest.raises(DataFormatError, match=r"no dataset\.yaml"):
        open_dataset(root)


def test_frames_that_lack_a_kind_are_named(root: Path) -> None:
    (root / "train" / "b" / "sharp" / "000001.png").unlink()
    with pytest.raises(DataFormatError, match=r"no sharp of 000001 \(2 of 3 frames\)"):
        open_dataset(root).clips("train")
    shutil.rmtree(root / "train" / "b" / "sharp")
    with pytest.raises(DataFormatError, match=r"no sharp of 000000, .*true sharp frames"):
        open_dataset(root).clips("train")


def test_a_cut_stream_is_refused_when_indexed(root: Path) -> None:
    path = root / "train" / "a" / "spike" / "000001.dat"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataFormatError, match=r"number of steps.*got 15260 bytes.*000001\.dat"):
        open_dataset(root).clips("train")


def test_images_of_another_size_or_kind_are_refused(root: Path) -> None:
    clip = open_dataset(root).clips("train")[0]
    path = clip.image_path("sharp", 1)
    Image.new("RGB", (48, 41)).save(path)
    with pytest.raises(DataFormatError, match=r"another size.*got 41x48, expected 40x48"):
        read_frames(clip, "sharp")
    Image.new("RGBA", (48, 40)).save(path)
    with pytest.raises(DataFormatError, match=r"unsupported kind of image.*RGBA"):
        read_frames(clip, "sharp")
    Image.new("RGB", (48, 40)).save(path, transparency=(0, 0, 0))
    with pytest.raises(DataFormatError, match=r"unsupported kind of image.*transparent"):
        read_frames(clip, "sharp")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataFormatError, match="image"):
        read_frames(clip, "sharp")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exposure": [0, 65]}, "exposure"),
        ({"target_step": 60}, "target step"),
        ({"steps_per_frame": 0}, "steps_per_frame"),
        ({"colour": "yes"}, "colour"),
        ({"version": 2}, "version"),
        ({"spike": {"height": 40, "width": 48, "rate_hz": 0, "threshold": 2}}, r"spike\.rate_hz"),
    ],
)
def test_absurd_descriptions_are_refused_by_key(
    root: Path, changes: dict[str, object], message: str
) -> None:
    path = root / "dataset.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    with pytest.raises(DataFormatError, match=message):
        open_dataset(root)


@pytest.mark.parametrize("text", ["- 1\n", "a: [", ""])
def test_files_that_are_no_description_are_refused(root: Path, text: str) -> None:
    (root / "dataset.yaml").write_text(text)
    with pytest.raises(DataFormatError, match=r"dataset\.yaml"):
        open_dataset(root)


def test_a_description_cannot_be_changed() -> None:
    with pytest.raises((ValueError, ConfigError)):
        info().target_step = 3  # type: ignore[misc]
