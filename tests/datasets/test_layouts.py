"""Every layout of the field is indexed from names alone, and reads back what was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml
from PIL import Image, ImageFile

from tests.datasets.layout_trees import RGB_FOLDERS, WRITERS, Tree, write_spikecv, write_x4k
from vrtspike.config.choices import LayoutName
from vrtspike.datasets.clip import read_frames, read_spikes
from vrtspike.datasets.index import Dataset, open_dataset
from vrtspike.datasets.layout_hints import likely_layouts
from vrtspike.datasets.layouts import layout_of
from vrtspike.errors import DataFormatError


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tree]:
    """Return a function that writes a clean tree, once each; they must not be changed."""
    found: dict[str, Tree] = {}

    def tree(name: str) -> Tree:
        if name not in found:
            found[name] = WRITERS[name](tmp_path_factory.mktemp("layouts") / "Ordner für alles")
        return found[name]

    return tree


def opened(tree: Tree) -> Dataset:
    return open_dataset(tree.root, tree.layout)


@pytest.mark.parametrize("name", WRITERS)
def test_the_index_names_what_was_written(name: str, trees: Callable[[str], Tree]) -> None:
    tree = trees(name)
    dataset = opened(tree)
    assert dataset.splits == tuple(sorted({split for split, _ in tree.sequences}))
    for (split, sequence), written in tree.sequences.items():
        assert dataset.sequences(split) == (sequence,)
        clip = dataset.clip(split, sequence)
        assert [frame.name for frame in clip.frames] == written.names
        if name in RGB_FOLDERS:
            assert clip.info.spike is None
            assert all(not frame.spikes for frame in clip.frames)
            continue
        timeline = clip.info.timeline
        assert timeline.exposure == written.exposure
        assert timeline.target_step == written.target
        assert timeline.steps_per_frame == written.steps_per_frame


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_read_is_what_was_written(name: str, trees: Callable[[str], Tree]) -> None:
    tree = trees(name)
    for (split, sequence), written in tree.sequences.items():
        clip = opened(tree).clip(split, sequence)
        if written.blurred:
            np.testing.assert_array_equal(read_frames(clip, "blurred"), written.blurred)
            np.testing.assert_array_equal(read_frames(clip, "sharp"), written.sharp)
        if clip.info.spike is not None:
            np.testing.assert_array_equal(read_spikes(clip), written.spikes)
            np.testing.assert_array_equal(read_spikes(clip, 0, 1), written.spikes[:1])


@pytest.mark.parametrize("name", WRITERS)
def test_no_pixel_and_no_spike_is_read_for_the_index(
    name: str, trees: Callable[[str], Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pixels were read")

    tree = trees(name)
    for place in (Image.Image, ImageFile.ImageFile):
        monkeypatch.setattr(place, "load", refuse)
    monkeypatch.setattr(np, "memmap", refuse)
    dataset = opened(tree)
    assert [c.name for split in dataset.splits for c in dataset.clips(split)]


@pytest.mark.parametrize("name", ["own", "own_changed", "align"])
def test_our_layout_needs_no_image_at_all(name: str, tmp_path: Path) -> None:
    tree = WRITERS[name](tmp_path)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    for (split, sequence), written in tree.sequences.items():
        assert [f.name for f in opened(tree).clip(split, sequence).frames] == written.names


def test_published_layouts_need_one_readable_header(tmp_path: Path) -> None:
    tree = WRITERS["spk_gopro"](tmp_path)
    images = sorted(tmp_path.rglob("blur/*.png"))
    for path in images[:1] + images[-2:]:
        path.write_bytes(b"")
    assert {c.info.frame.height for s in ("train", "test") for c in opened(tree).clips(s)} == {48}
    for path in tmp_path.rglob("train/*/*/*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataFormatError, match=r"unreadable image .*000047\.png"):
        opened(tree).clips("train")


RIGHT = {"own_changed": "own", "align": "own", "align_late": "own"}


@pytest.mark.parametrize("name", WRITERS)
def test_a_wrong_layout_is_refused_and_the_right_one_named(
    name: str, trees: Callable[[str], Tree]
) -> None:
    tree = trees(name)
    assert tree.layout in likely_layouts(opened(tree).folder, opened(tree).files)
    for wrong in get_args(LayoutName):
        if layout_of(wrong).group(opened(tree).folder, opened(tree).files):
            continue  # frames of one layout may be read as those of another, as a baseline
        with pytest.raises(DataFormatError, match=rf"looks like .*{tree.layout}|no dataset\.yaml"):
            open_dataset(tree.root, wrong)


def test_the_likely_layout_takes_the_spikes_along(trees: Callable[[str], Tree]) -> None:
    for name in ("spk_gopro", "spk_gopro_gamma", "s_sdm", "spk_x4k_65"):
        with pytest.raises(DataFormatError, match=rf"looks like {name}: "):
            open_dataset(trees(name).root)


def test_an_empty_folder_and_a_foreign_config_are_no_layout(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match=r"no dataset\.yaml"):
        open_dataset(tmp_path)
    with pytest.raises(DataFormatError, match=r"no sequence of this layout.*no file"):
        open_dataset(tmp_path, "reds")
    (tmp_path / "config.yaml").write_text("model: {channels: 3}\n")
    with pytest.raises(DataFormatError, match=r"no sequence.*config\.yaml.*holds the splits"):
        open_dataset(tmp_path, "s_sdm")
    with pytest.raises(DataFormatError, match="spike_w"):
        open_dataset(tmp_path, "spikecv")


def test_a_stream_of_x4k_that_is_too_short_is_named(tmp_path: Path) -> None:
    tree = write_x4k(tmp_path)
    path = next(tmp_path.rglob("val_spike_2xds/one/spike.dat"))
    path.write_bytes(path.read_bytes()[: 80 * 24 * 32 // 8])
    with pytest.raises(DataFormatError, match=r"stream of 80 steps .*0019.*spike\.dat"):
        opened(tree).clips("val")


@pytest.mark.parametrize(
    ("name", "index"), [("0000", 0), ("0001", 4), ("0001_002", 7), ("0064", 256), ("12_000", 49)]
)
def test_names_of_x4k_count_in_fours(name: str, index: int) -> None:
    assert layout_of("spk_x4k_33").frame_index(name) == index


def test_names_of_x4k_that_say_no_instant_are_refused() -> None:
    with pytest.raises(DataFormatError, match=r"no instant.*got first"):
        layout_of("spk_x4k_65").frame_index("first")


@pytest.mark.parametrize(
    ("sequence", "says"),
    [("street", "does not say"), ("GOPR0372_00_00", "no frame was averaged")],
)
def test_names_of_gopro_that_say_no_exposure_are_refused(
    sequence: str, says: str, tmp_path: Path
) -> None:
    tree = WRITERS["spk_gopro"](tmp_path)
    (tmp_path / "train" / "GOPR0372_07_00").rename(tmp_path / "train" / sequence)
    with pytest.raises(DataFormatError, match=f"{says}.*got {sequence}"):
        opened(tree).clips("train")


def test_frames_that_were_cropped_do_not_fit_the_layout(tmp_path: Path) -> None:
    tree = WRITERS["spk_gopro"](tmp_path)
    for path in tmp_path.rglob("*.png"):
        Image.new("RGB", (63, 48)).save(path)
    with pytest.raises(DataFormatError, match=r"do not divide.*got 48x63, expected multiples of 2"):
        opened(tree).clips("train")


def test_frames_follow_by_number_not_by_letter(tmp_path: Path) -> None:
    tree = WRITERS["own"](tmp_path, frames=11)
    for path in list(tmp_path.rglob("0*.*")):
        path.rename(path.with_name(f"{int(path.stem)}{path.suffix}"))
    clip = opened(tree).clips("val")[0]
    assert [frame.name for frame in clip.frames] == [str(number) for number in range(11)]
    np.testing.assert_array_equal(read_spikes(clip), tree.sequences["val", "zwei"].spikes)


def test_a_second_file_of_a_frame_is_no_guess(tmp_path: Path) -> None:
    tree = WRITERS["own"](tmp_path)
    folder = tmp_path / "val" / "zwei" / "sharp"
    Image.open(folder / "000001.png").save(folder / "000001.jpg")
    with pytest.raises(DataFormatError, match=r"second file of this frame .*000001\.(png|jpg)"):
        opened(tree).clips("val")


def test_spikecv_folders_claim_only_their_own_streams(tmp_path: Path) -> None:
    tree = write_spikecv(tmp_path)
    (tmp_path / "config.yaml").unlink()
    values = {"spike_h": 24, "spike_w": 32, "is_labeled": False}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    assert opened(tree).splits == ("set ü",), "the root's own pattern reaches no subfolder"
    with pytest.raises(DataFormatError, match="no blurred image"):
        read_frames(opened(tree).clips("set ü")[0], "blurred")


def test_patterns_take_names_literally(tmp_path: Path) -> None:
    tree = WRITERS["gopro"](tmp_path)
    name = "a [1] (ß).+*"
    (tmp_path / "test" / "IMG 0030 ü").rename(tmp_path / "test" / name)
    clip = opened(tree).clips("test")[0]
    assert clip.sequence == name
    assert len(read_frames(clip, "sharp")) == 3
