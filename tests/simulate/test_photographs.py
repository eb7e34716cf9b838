"""One's own photographs: kept apart by their names, upright, and refused where they are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tests.simulate.scene_folder import write_scenes
from vrtspike.config.camera import CameraSettings
from vrtspike.config.loader import load_config
from vrtspike.config.scenes import SceneSettings
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.simulate.flow_pairs import FlowPairReader
from vrtspike.simulate.on_ray import with_absolute_paths
from vrtspike.simulate.photographs import (
    LONGEST_SIDE,
    divided,
    find_photographs,
    load_photograph,
    photographs_of,
)
from vrtspike.simulate.recording import SceneTask, build_scene, describe_scenes, record_scene

CAMERA = CameraSettings()
SCENES = SceneSettings(
    sequences={"train": 2, "held_out": 1},
    frames=2,
    height=33,
    width=47,
    steps_per_frame=16,
    exposure_steps=12,
)


def named(count: int, seed: int = 0) -> list[Path]:
    """Return names as cameras give them."""
    return [Path(f"IMG_{seed}{number:04d}.jpg") for number in range(count)]


def picture(height: int = 60, width: int = 80, seed: int = 0) -> Image.Image:
    """Return a picture of noise."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of a dozen photographs, some of them below it, and of other files."""
    place = tmp_path / "photos"
    (place / "more").mkdir(parents=True)
    for number, suffix in enumerate(3 * (".png", ".jpg", ".JPG", ".webp")):
        below = place / "more" if number % 2 else place
        picture(seed=number).save(below / f"view {number}{suffix}")
    (place / "LICENCE.txt").write_text("free")
    (place / ".trash").mkdir()
    picture().save(place / ".trash" / "thrown_away.png")
    return place


def split_of(files: list[Path]) -> dict[Path, str]:
    """Return the split of each file."""
    return {file: split for split, part in divided(files).items() for file in part}


def test_nine_of_ten_are_trained_on_and_no_other_file_moves_any() -> None:
    files = named(4000)
    splits = split_of(files)
    shares = {name: list(splits.values()).count(name) / 4000 for name in ("train", "val")}
    assert shares == {
        "train": pytest.approx(0.9, abs=0.02),
        "val": pytest.approx(0.05, abs=0.015),
    }
    for part in (files[:2000], files[1500:], [Path("elsewhere") / f.name for f in files[:2000]]):
        assert split_of(part) == {file: splits[Path(file.name)] for file in part}


def test_copies_of_another_format_stay_with_their_original() -> None:
    files = named(300)
    copies = [Path("small") / file.with_suffix(".png") for file in files]
    splits = split_of(files + copies)
    assert [splits[file] for file in files] == [splits[copy] for copy in copies]


def test_few_photographs_fill_every_split_and_none_ever_leaves_the_training() -> None:
    filled = 0
    for seed in range(60):
        before: dict[Path, str] = {}
        for count in range(3, 30):
            try:
                splits = split_of(named(count, seed))
            except ConfigError:
                assert count < 12
                continue
            assert set(splits.values()) == {"train", "val", "held_out"}
            filled += count == 3
            moved = {before[f] for f in before if splits[f] != before[f]}
            assert "train" not in moved
            before = splits
    assert filled > 55
    with pytest.raises(ConfigError, match=r"too few photographs.*got 2 of 2 names"):
        divided(named(2))


def test_all_image_files_of_a_folder_are_found_once_wherever_it_lies(folder: Path) -> None:
    found = find_photographs([folder])
    assert sorted(int(file.stem.split()[1]) for file in found) == list(range(12))
    assert find_photographs([folder, folder / "more" / ".." / "more", found[0]]) == found
    moved = folder.rename(folder.with_name("pictures"))
    assert [f.name for f in find_photographs([moved])] == [f.name for f in found]
    assert find_photographs([moved / found[3].relative_to(folder)])[0].name == found[3].name


def test_places_without_photographs_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place, got in (
        (tmp_path / "missing", "no such file or folder"),
        (tmp_path / "empty", "a folder without any"),
        (folder / "LICENCE.txt", "a file of another kind"),
    ):
        scenes = SCENES.model_copy(update={"photographs": (folder, place)})
        with pytest.raises(ConfigError, match=got) as caught:
            write_scenes(scenes, CAMERA, tmp_path / "set")
        assert str(place) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("content", "mode"), [(b"no picture", ""), (b"", ""), (None, "RGBA"), (None, "I;16")]
)
def test_a_file_that_is_no_8_bit_picture_is_named(
    tmp_path: Path, content: bytes | None, mode: str
) -> None:
    file = tmp_path / "a.png"
    if content is not None:
        file.write_bytes(content)
    else:
        Image.new(mode, (8, 8)).save(file)
    with pytest.raises(DataFormatError, match=r"a\.png") as caught:
        load_photograph(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_stand_upright(tmp_path: Path, orientation: int) -> None:
    scene = np.zeros((32, 48, 3), np.uint8)
    scene[:16, :24] = (255, 0, 0)  # red is at the top left, green at the top right
    scene[:16, 24:] = (0, 255, 0)
    turned = {
        1: scene,
        2: scene[:, ::-1],
        3: scene[::-1, ::-1],
        4: scene[::-1],
        5: scene.swapaxes(0, 1),
        6: np.rot90(scene, 1),
        7: scene[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(scene, -1),
    }
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = tmp_path / f"{orientation}.jpg"
    Image.fromarray(turned[orientation]).save(file, exif=exif, quality=95)
    found = load_photograph(file)
    assert found.shape == scene.shape and not found.flags.writeable
    np.testing.assert_allclose(found[4:12, 4:20], scene[4:12, 4:20], atol=40)
    np.testing.assert_allclose(found[4:12, 28:44], scene[4:12, 28:44], atol=40)


def test_gray_is_repeated_and_large_photographs_are_averaged(tmp_path: Path) -> None:
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "gray.png")
    gray = load_photograph(tmp_path / "gray.png")
    assert gray.shape == (8, 8, 3) and (gray == gray[..., :1]).all()
    wide = np.zeros((4, LONGEST_SIDE + 100, 3), np.uint8)
    wide[:, ::2] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    found = load_photograph(tmp_path / "wide.png")
    assert found.shape == (2, LONGEST_SIDE // 2 + 50, 3) and (found == 100).all()


def test_scenes_show_their_split_s_photographs_as_backgrounds_and_objects(tmp_path: Path) -> None:
    """Photographs of training are red, of validation green, of the rest blue."""
    files = [tmp_path / name for name in named(40)]
    colours = {"train": (200, 0, 0), "val": (0, 200, 0), "held_out": (0, 0, 200)}
    for file, split in split_of(files).items():
        Image.new("RGB", (90, 70), colours[split]).save(file, quality=95)
    scenes = SCENES.model_copy(update={"photographs": (tmp_path,), "objects": (2, 2)})
    for split, channel in (("train", 0), ("val", 1), ("held_out", 2), ("test", 2)):
        scene, _ = build_scene(SceneTask(split, 3), scenes)
        for layer in scene.layers:
            colour = layer.texture[0, :3].amax(dim=(1, 2)).numpy()
            assert colour.argmax() == channel and np.delete(colour, channel).max() < 0.1
    even = scenes.model_copy(update={"height": 32, "width": 48})
    sharp = FlowPairReader(even, "val", 0, 10).whole(0)["frames"][0]
    assert sharp[:, 1].min() > 100 > sharp[:, ::2].max()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 9), (300, 300)])
@pytest.mark.parametrize("frame", [(33, 47), (7, 150)])
def test_photographs_and_frames_of_any_size(
    tmp_path: Path, size: tuple[int, int], frame: tuple[int, int]
) -> None:
    files = [tmp_path / name for name in named(12)]
    for number, file in enumerate(files):
        picture(*size, seed=number).save(file)
    scenes = SCENES.model_copy(
        update={"photographs": (tmp_path,), "height": frame[0], "width": frame[1]}
    )
    first = next(iter(record_scene(SceneTask("train", 0), scenes, CAMERA)))
    assert first.sharp.shape == (*frame, 3) and first.spikes.shape == (16, *frame)
    assert np.isfinite(first.blurred).all()


def test_small_photographs_are_magnified_and_mirrored_as_little_as_can_be(tmp_path: Path) -> None:
    """A gradient that fills the view once shows nearly all of its brightness, smoothly."""
    ramp: NDArray[np.uint8] = np.linspace(20, 230, 24).astype(np.uint8)
    for file in named(12):
        Image.fromarray(np.tile(ramp, (20, 1))).convert("RGB").save(tmp_path / file, quality=98)
    scenes = SCENES.model_copy(
        update={
            "photographs": (tmp_path,),
            "height": 100,
            "width": 120,
            "objects": (0, 0),
            "motion": (1.0, 1.0),
        }
    )
    scene, _ = build_scene(SceneTask("train", 0), scenes)
    row = scene.render([16.0])[0, 50, :, 1]
    assert np.ptp(row) > 0.45
    slopes = np.diff(row)
    assert (slopes * np.sign(np.median(slopes)) > -0.01).all(), "no mirror in the middle"


def test_a_folder_that_changed_is_another_simulation_and_one_that_moved_is_not(
    folder: Path, tmp_path: Path
) -> None:
    def scenes(place: Path) -> SceneSettings:
        return SCENES.model_copy(update={"photographs": (place,)})

    write_scenes(scenes(folder), CAMERA, tmp_path / "set")
    (tmp_path / "moved").mkdir()
    moved = folder.rename(tmp_path / "moved" / "photos")
    write_scenes(with_absolute_paths(scenes(moved)), CAMERA, tmp_path / "set")
    picture(100, 100).save(moved / "view 0.png")
    with pytest.raises(DataFormatError, match="holds another dataset"):
        write_scenes(scenes(moved), CAMERA, tmp_path / "set")
    picture().save(moved / "view 0.png")
    write_scenes(scenes(moved), CAMERA, tmp_path / "set")
    picture(seed=99).save(moved / "new.png")
    with pytest.raises(DataFormatError, match="holds another dataset"):
        write_scenes(scenes(moved), CAMERA, tmp_path / "set")


def test_datasets_from_before_say_nothing_of_photographs() -> None:
    assert "photographs" not in describe_scenes(SCENES, CAMERA).source


def test_the_setting_takes_one_place_or_several(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("scenes: {photographs: photos}\n")
    for overrides, expected in (
        ((), (Path("photos"),)),
        (("scenes.photographs=[a, b/c.jpg]",), (Path("a"), Path("b/c.jpg"))),
        (("scenes.photographs=null",), None),
    ):
        scenes = load_config(file, overrides).scenes
        assert scenes is not None and scenes.photographs == expected
    with pytest.raises(ConfigError, match="photographs"):
        load_config(file, ("scenes.photographs=[]",))


def test_real_photographs_are_divided_and_rendered(shared: Path) -> None:
    photos = shared / "data" / "photos"
    parts = {s: photographs_of(s, [photos]).backgrounds for s in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 290,
        "val": 18,
        "test": 13,
    }
    assert len(set().union(*parts.values())) == 321
