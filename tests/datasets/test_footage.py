"""Footage in every form reads as the dataset does, and what does not fit together is named."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from tests.datasets.align_logs import write_align_log
from tests.datasets.footage_files import CAMERA, EXPOSED, STEPS, film, stream_of
from vrtspike.datasets.align_log import AlignEntry
from vrtspike.datasets.clip import read_frames, read_spikes
from vrtspike.datasets.footage import Footage, FootageReader, Source, find_sources, open_footage
from vrtspike.datasets.index import open_dataset
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.spikes.representation import SpikeRepresentation

COUNTS = {"s2": 5, "s10": 3}
Array = NDArray[Any]


@pytest.fixture(scope="module")
def dataset(
    tmp_path_factory: pytest.TempPathFactory, moving_photograph: Callable[..., Path]
) -> Path:
    return moving_photograph(tmp_path_factory.mktemp("data") / "set", COUNTS) / "held_out"


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    """Return a copy of the split, to be spoilt."""
    return Path(shutil.copytree(dataset.parent, tmp_path / "set")) / "held_out"


def truth(split: Path, sequence: str) -> tuple[Array, Array]:
    """Return frames and spikes of a sequence, as the dataset's reader has them."""
    clip = open_dataset(split.parent).clip("held_out", sequence)
    return read_frames(clip, "blurred"), read_spikes(clip)


def naive(spikes: Array, bins: int, first: int, last: int, threshold: float) -> Array:
    """Average the spikes of each bin, one step at a time."""
    counts, steps = np.zeros((len(spikes), bins, *spikes.shape[2:])), np.zeros((bins, 1, 1))
    for step in range(first, last):
        counts[:, (step - first) * bins // (last - first)] += spikes[:, step]
        steps[(step - first) * bins // (last - first)] += 1
    return threshold * counts / steps


def check(footage: Footage, frames: Array, spikes: Array | None, bins: int = 5) -> None:
    """Compare all windows of a clip with what it should hold."""
    assert (footage.frames, footage.size) == (len(frames), frames.shape[1:3])
    footage = pickle.loads(pickle.dumps(footage))
    with FootageReader(footage) as reader:
        count = len(frames)
        for start, stop in [(0, 1), (0, count), (count // 2, count), (0, min(2, count))]:
            np.testing.assert_array_equal(reader.frames(start, stop), frames[start:stop])
            if spikes is not None:
                info = footage.clip.info
                expected = naive(
                    spikes[start:stop], bins, *info.timeline.exposure, info.camera.threshold
                )
                found = reader.voxels(start, stop, SpikeRepresentation(bins))
                np.testing.assert_allclose(found, expected, rtol=2**-11)  # float16


def plain(copy: Path, name: str) -> tuple[Path, Path | None]:
    """Move a clip's files to another form; return what is given as input and as spikes."""
    split, (frames, _) = copy, truth(copy, "s2")
    match name:
        case "sequence":
            return split / "s2", split / "s2"
        case "sequence, folder by folder":
            return split / "s2" / "blurred", split / "s2" / "spike"
        case "blur":
            (split / "s2" / "blurred").rename(split / "s2" / "blur")
            return split / "s2", split / "s2" / "spike"
        case "images and a stream":
            (split / "s2" / "blurred").rename(split / "images")
            return split / "images", stream_of(split / "s2", split / "s2.dat")
        case "images and a folder with a stream":
            stream = stream_of(split / "s2", split / "one" / "whatever.dat")
            return split / "s2" / "blurred", stream.parent
        case "video and a stream":
            return film(frames, split / "v.mkv"), stream_of(split / "s2", split / "x.dat")
        case "video and a file a frame":
            return film(frames, split / "v.mkv"), split / "s2"
        case "video and files of other names":
            for number, file in enumerate(sorted((split / "s2" / "spike").iterdir())):
                file.rename(file.with_name(f"s{8 + number}.dat"))
            return film(frames, split / "v.mkv"), split / "s2" / "spike"
        case _:
            return film(frames, split / "v.mkv"), None


@pytest.mark.parametrize(
    "form",
    [
        "sequence",
        "sequence, folder by folder",
        "blur",
        "images and a stream",
        "images and a folder with a stream",
        "video and a stream",
        "video and a file a frame",
        "video and files of other names",
        "video",
    ],
)
@pytest.mark.parametrize("camera", [None, CAMERA], ids=["dataset.yaml", "described"])
def test_every_form_of_a_clip_reads_as_the_dataset(
    copy: Path, form: str, camera: dict[str, Any] | None
) -> None:
    frames, spikes = truth(copy, "s2")
    place, given = plain(copy, form)
    if camera is not None:
        (copy.parent / "dataset.yaml").unlink()
    (source,) = find_sources(place, given)
    footage = open_footage(source, camera)
    check(footage, frames, None if given is None else spikes)
    assert footage.name == {"bl": "s2", "im": "images", "vi": "v"}.get(form[:2], "s2") or (
        form == "images and a folder with a stream"
    )


def test_several_clips_in_folders_are_found_in_order(dataset: Path) -> None:
    sources = find_sources(dataset, dataset)
    assert [source.name for source in sources] == ["s2", "s10"]
    for source in sources:
        check(open_footage(source), *truth(dataset, source.name))


@pytest.mark.parametrize("streams", [True, False])
def test_several_videos_find_their_spikes_by_name(copy: Path, streams: bool) -> None:
    for name in COUNTS:
        film(truth(copy, name)[0], copy / "films" / f"{name}.mkv")
        if streams:
            stream_of(copy / name, copy / "streams" / f"{name}.dat")
    (copy / "films" / "readme.txt").write_text("no clip")
    (copy / "films" / ".hidden").mkdir()
    Image.new("RGB", (8, 8)).save(copy / "films" / ".hidden" / "0.png")
    sources = find_sources(copy / "films", copy / "streams" if streams else copy)
    assert [source.name for source in sources] == ["s2", "s10"]
    for source in sources:
        check(open_footage(source), *truth(copy, source.name))


def test_one_frame_may_have_a_stream_of_any_name_or_a_file_of_its_own(copy: Path) -> None:
    frames, spikes = truth(copy, "s2")
    for number in range(1, 5):
        (copy / "s2" / "blurred" / f"{number:06d}.png").unlink()
        (copy / "s2" / "spike" / f"{number:06d}.dat").unlink()
    check(open_footage(Source("a", copy / "s2/blurred", copy / "s2")), frames[:1], spikes[:1])
    stream = stream_of(copy / "s2", copy / "other.dat")
    check(open_footage(Source("a", copy / "s2/blurred", stream)), frames[:1], spikes[:1])


def test_a_sequence_with_settings_of_its_own_has_these(copy: Path) -> None:
    changes = {"exposure": [4, 40], "target_step": 20, "spike": {"threshold": 3.0}}
    (copy / "s2" / "sequence.yaml").write_text(yaml.safe_dump(changes))
    info = open_dataset(copy.parent).clip("held_out", "s2").info
    (source,) = find_sources(copy / "s2", copy / "s2")
    footage = open_footage(source)
    assert footage.clip.info == info and info.camera.threshold == 3.0
    check(footage, *truth(copy, "s2"), bins=7)


def test_a_bin_of_many_steps_counts_them_all(copy: Path) -> None:
    (copy / "s2" / "spike" / "000000.dat").write_bytes(b"\xff" * (40 * 48 // 8) * 300)
    camera = CAMERA | {"steps_per_frame": 300, "exposure": [0, 300]}
    source = Source("a", copy / "s2" / "blurred", copy / "s2" / "spike" / "000000.dat")
    for number in range(1, 5):
        (copy / "s2" / "blurred" / f"{number:06d}.png").unlink()
    with FootageReader(open_footage(source, camera)) as reader:
        voxels = reader.voxels(0, 1, SpikeRepresentation(1, exposure=True))
        assert (voxels == 2.0).all(), "spikes of every step, times threshold"


def test_spikes_are_registered_to_the_frames(copy: Path) -> None:
    info = yaml.safe_load((copy.parent / "dataset.yaml").read_text())
    crop = {"kind": "crop", "top": 4, "left": 8, "height": 20, "width": 24}
    info["spike"]["registration"] = crop
    (copy.parent / "dataset.yaml").write_text(yaml.safe_dump(info))
    frames, spikes = truth(copy, "s2")
    assert spikes.shape[2:] == (20, 24)
    check(open_footage(Source("s2", copy / "s2" / "blurred", copy / "s2")), frames, spikes)


@pytest.mark.parametrize("lead", [0, 9])
def test_an_align_log_says_where_frames_lie_in_the_stream(copy: Path, lead: int) -> None:
    frames, spikes = truth(copy, "s2")
    stream = stream_of(copy / "s2", copy / "logged" / "s2.dat")
    step = 40 * 48 // 8
    stream.write_bytes(b"\0" * lead * step + stream.read_bytes() + b"\0" * 40 * step)
    entries = [
        AlignEntry("s2", n, t, t + EXPOSED / 1000, 0)
        for n in range(5)
        for t in [(lead + n * STEPS) / 1000]
    ]
    write_align_log(stream.parent / "align.csv", entries)
    source = Source("s2", copy / "s2" / "blurred", stream)
    check(open_footage(source), frames, spikes)
    check(open_footage(source, CAMERA), frames, spikes)
    with pytest.raises(ConfigError, match=r"in seconds, and nothing says.*align\.csv.*--fps"):
        open_footage(source, without_rate(CAMERA))
    write_align_log(stream.parent / "align.csv", entries[:-1])
    with pytest.raises(DataFormatError, match=r"no entry of this frame \[.*align\.csv"):
        open_footage(source)


def test_frames_a_second_are_those_of_the_video_or_of_the_camera(copy: Path) -> None:
    frames, _ = truth(copy, "s2")
    video, images = film(frames, copy / "v.mkv"), copy / "s2" / "blurred"
    unknown = without_rate(CAMERA)
    for place, spikes, camera, fps in [
        (video, None, None, 25),
        (video, copy / "s2", unknown, 25),
        (video, copy / "s2", None, 25),
        (images, copy / "s2", None, Fraction(1000, STEPS)),
        (images, copy / "s2", CAMERA, Fraction(1000, STEPS)),
        (images, copy / "s2", unknown, None),
        (images, None, None, None),
    ]:
        assert open_footage(Source("v", place, spikes), camera).fps == fps


def without_rate(camera: dict[str, Any]) -> dict[str, Any]:
    """Return a camera of which nobody knows how fast its steps follow one another."""
    spike = {name: value for name, value in camera["spike"].items() if name != "rate_hz"}
    return camera | {"spike": spike}
