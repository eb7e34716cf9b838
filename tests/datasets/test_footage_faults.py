"""What does not fit together in footage is one line that names the place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.datasets.footage_files import CAMERA, STEPS, stream_of
from vrtspike.datasets.footage import Source, find_sources, open_footage
from vrtspike.errors import DataFormatError


@pytest.fixture(scope="module")
def dataset(
    tmp_path_factory: pytest.TempPathFactory, moving_photograph: Callable[..., Path]
) -> Path:
    return moving_photograph(tmp_path_factory.mktemp("data") / "set", {"s2": 5, "s10": 3})


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    """Return a copy of the split, to be spoilt."""
    return Path(shutil.copytree(dataset, tmp_path / "set")) / "held_out"


def test_clips_without_images_and_places_without_clips_are_refused(copy: Path) -> None:
    (copy / "empty").mkdir()
    for place, spikes, message in [
        (copy / "none", None, r"no such input \[.*none\]"),
        (copy / "s2", copy / "none", r"no such spikes \[.*none\]"),
        (copy / "empty", None, r"no images and no video here \[.*empty\].*\.png"),
        (copy / "s2" / "spike", None, "no images and no video here"),
        (copy, stream_of(copy / "s2", copy.parent / "x.dat"), r"one stream for several clips"),
    ]:
        with pytest.raises(DataFormatError, match=message):
            find_sources(place, spikes)
    (copy / "s2" / "blurred" / "film.mp4").touch()
    with pytest.raises(DataFormatError, match=r"images and videos in one folder.*film\.mp4"):
        find_sources(copy / "s2", None)
    for name in ("a.mp4", "a.mkv"):
        (copy.parent / "films").mkdir(exist_ok=True)
        (copy.parent / "films" / name).touch()
    with pytest.raises(DataFormatError, match=r"two clips have one name.*got a"):
        find_sources(copy.parent / "films", None)


def spoil(copy: Path, fault: str) -> Source:
    """Spoil a clip; return it."""
    s2 = copy / "s2"
    source = Source("s2", s2 / "blurred", s2 / "spike")
    stream = Source("s2", s2 / "blurred", stream_of(s2, copy / "x.dat"))
    match fault:
        case "a frame more":
            shutil.copy(s2 / "blurred/000000.png", s2 / "blurred/000009.png")
        case "a spike file more":
            shutil.copy(s2 / "spike/000000.dat", s2 / "spike/000009.dat")
        case "another name":
            (s2 / "spike/000004.dat").rename(s2 / "spike/000007.dat")
        case "a frame larger":
            Image.new("RGB", (50, 40)).save(s2 / "blurred/000003.png")
        case "all frames larger":
            for file in (s2 / "blurred").iterdir():
                Image.new("RGB", (50, 40)).save(file)
        case "the first frame spoilt":
            (s2 / "blurred/000000.png").write_bytes(b"spoilt")
        case "half a step":
            (s2 / "spike/000002.dat").write_bytes(b"\0" * (STEPS * 240 - 7))
        case "a step less":
            (s2 / "spike/000002.dat").write_bytes(b"\0" * (STEPS - 1) * 240)
        case "an empty file":
            (s2 / "spike/000002.dat").write_bytes(b"")
        case "no spikes":
            shutil.rmtree(s2 / "spike")
            (s2 / "spike").mkdir()
        case "arrays":
            shutil.rmtree(s2 / "spike")
            (s2 / "spike").mkdir()
            np.save(s2 / "spike/000000.npy", np.zeros(3))
        case "no description":
            (copy.parent / "dataset.yaml").unlink()
        case "a wrong description":
            (copy.parent / "dataset.yaml").write_text("frame: {height: 4}")
        case "two images of a frame":
            Image.new("RGB", (48, 40)).save(s2 / "blurred/000000.jpg")
        case "a short stream":
            (copy / "x.dat").write_bytes(b"\0" * 240 * STEPS * 4)
            return stream
        case "a long stream":
            (copy / "x.dat").write_bytes(b"\0" * 240 * STEPS * 6)
            return stream
        case "a spoilt video":
            (copy / "v.mp4").write_bytes(b"spoilt")
            return Source("v", copy / "v.mp4", None)
        case "a late stream":
            info = yaml.safe_load((copy.parent / "dataset.yaml").read_text())
            info["spike"]["time_offset_steps"] = 5
            (copy.parent / "dataset.yaml").write_text(yaml.safe_dump(info))
    return source


@pytest.mark.parametrize(
    ("fault", "place", "message"),
    [
        ("a frame more", "s2/spike", "do not belong together.*6 frames, 5 spike files.*000009"),
        ("a spike file more", "s2/spike", "do not belong together.*5 frames, 6 spike files"),
        ("another name", "s2/spike", "do not belong together.*none of 000004"),
        ("a frame larger", "blurred/000003.png", "different sizes.*got 40x50, expected 40x48"),
        ("all frames larger", "s2/blurred", "another size than.*got 40x50, expected 40x48"),
        ("the first frame spoilt", "blurred/000000.png", "not an image"),
        ("half a step", "spike/000002.dat", "no whole number of steps.*a multiple of 240"),
        ("a step less", "spike/000002.dat", "another number of steps.*got 63 steps"),
        ("an empty file", "spike/000002.dat", "no whole number of steps.*got 0 bytes"),
        ("no spikes", "s2/spike", "no bit-packed spikes here.*vrtspike convert"),
        ("arrays", "spike/000000.npy", "no bit-packed spikes here.*vrtspike convert"),
        ("no description", "s2/spike", "nothing says what the spike camera is.*--height"),
        ("a wrong description", "dataset.yaml", "width"),
        ("two images of a frame", "s2/blurred", "two images of one frame"),
        ("a short stream", "x.dat", r"different length.*5 frames, 256 steps = 4\.0 frames"),
        ("a long stream", "x.dat", r"different length.*5 frames, 384 steps = 6\.0 frames"),
        ("a spoilt video", "v.mp4", "video"),
        ("a late stream", "s2/spike", "do not reach over all frames.*000004"),
    ],
)
def test_what_does_not_fit_together_names_the_place(
    copy: Path, fault: str, place: str, message: str
) -> None:
    source = spoil(copy, fault)
    with pytest.raises(DataFormatError, match=message) as caught:
        open_footage(source)
    assert str(caught.value.where).endswith(place) and "\n" not in str(caught.value)


def test_a_camera_that_was_described_wrongly_is_refused(copy: Path) -> None:
    source = Source("s2", copy / "s2" / "blurred", copy / "s2")
    for change, message in [
        ({"exposure": [0, 65]}, "exposure"),
        ({"steps_per_frame": 32}, "exposure|target"),
        ({"spike": CAMERA["spike"] | {"height": 41}}, "no whole number of steps"),
    ]:
        with pytest.raises(DataFormatError, match=message):
            open_footage(source, CAMERA | change)
