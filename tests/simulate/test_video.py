"""Recorded video: true sharp frames, shots kept apart, bounded memory, bad files refused."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.datasets.findings_of import validate
from vrtspike.config.camera import CameraSettings
from vrtspike.config.scenes import VideoSettings
from vrtspike.datasets.clip import read_frames, read_spikes
from vrtspike.datasets.index import open_dataset
from vrtspike.datasets.writer import begin, finish
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.simulate.interpolation import FlowInterpolation
from vrtspike.simulate.photographs import load_photograph
from vrtspike.simulate.scenes import Scene
from vrtspike.simulate.video import (
    InterpolatedVideo,
    VideoTask,
    deal,
    describe_video,
    find_shots,
    inspect_video,
    record_video,
    video_tasks,
    write_video,
)
from vrtspike.spikes.gray import luma
from vrtspike.spikes.reconstruct import tfp
from vrtspike.video.inspect import iter_frames

SETTINGS = VideoSettings(frames=3, source_frames=4, splits={"train": 0.5, "test": 0.5})
MIXED = SETTINGS.model_copy(update={"interpolation": "linear"})
CAMERA = CameraSettings()


def moving_scene(count: int, seed: int, name: str = "coffee.png") -> Scene:
    """Return a scene that moves 2 pixels a frame."""
    return Scene(
        np.random.default_rng(seed),
        load_photograph(name),
        [load_photograph("brick.png")],
        height=48,
        width=64,
        frames=count,
        steps_per_frame=1,
        exposure_steps=1,
        motion=(2.0, 2.0),
        objects=(1, 1),
    )


def moving_frames(count: int, seed: int, name: str = "coffee.png") -> list[NDArray[np.uint8]]:
    """Return frames of a scene that moves 2 pixels a frame."""
    scene = moving_scene(count, seed, name)
    return list(np.rint(scene.render(np.arange(count)) * 255).astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 32 frames: a shot of 15 and one of 17."""
    path = tmp_path_factory.mktemp("video")
    for i, frame in enumerate([*moving_frames(15, 0), *moving_frames(17, 1, "chelsea.png")]):
        Image.fromarray(frame).save(path / f"{i:04d}.png")
    return path


def record(source: Path, root: Path, settings: VideoSettings = SETTINGS) -> None:
    """Record a video into a dataset folder."""
    video = inspect_video(source)
    begin(root, describe_video(video, settings, CAMERA))
    write_video(video_tasks(video, settings), video, settings, CAMERA, root)
    finish(root)


@pytest.fixture(scope="module")
def dataset(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the dataset recorded from the folder."""
    root = tmp_path_factory.mktemp("recorded") / "set"
    record(folder, root)
    return root


def test_shots_are_found_and_sequences_stay_inside_them(folder: Path) -> None:
    video = inspect_video(folder)
    assert (video.frames, video.height, video.width) == (32, 48, 64)
    assert video.shots == ((0, 15), (15, 32))
    tasks = video_tasks(video, SETTINGS)
    assert [(t.split, t.first) for t in tasks] == [("train", 0), ("test", 15)]


def test_a_burst_of_motion_is_no_cut() -> None:
    assert find_shots([5.0, 21.0, 22.0, 20.0, 5.0]) == ((0, 6),)
    assert find_shots([5.0, 60.0, 5.0]) == ((0, 2), (2, 4))
    assert find_shots([0, 20.0, 0, 22.0, 0, 21.0]) == ((0, 7),), "each frame shown twice"
    assert find_shots([0.1, 3.0, 0.1]) == ((0, 4),), "a flicker of three levels"
    assert find_shots([]) == ((0, 1),)


def test_sharp_frames_are_frames_of_the_video(folder: Path, dataset: Path) -> None:
    """Target step 28 of 64 lies 28 * 4 / 64 = 1.75 frames in, so frame 2 is the first target."""
    frames = list(iter_frames(folder))
    for split, first in (("train", 0), ("test", 15)):
        clip = open_dataset(dataset).clips(split)[0]
        expected = [frames[first + 2 + 4 * i] for i in range(3)]
        np.testing.assert_array_equal(read_frames(clip, "sharp"), expected)


def test_blur_and_spikes_agree_with_the_interpolated_light(folder: Path, tmp_path: Path) -> None:
    """Mixed frames, as what they are mixed to is told by hand."""
    record(folder, tmp_path / "set", MIXED)
    frames = np.stack(list(iter_frames(folder))).astype(np.float64)
    clip = open_dataset(tmp_path / "set").clips("train")[0]
    for i in range(3):
        times = 2 + 4 * i + (np.arange(56) + 0.5 - 28) * 4 / 64
        low = np.floor(times).astype(int)
        share = (times - low)[:, None, None, None]
        light = (frames[low] * (1 - share) + frames[low + 1] * share).mean(axis=0)
        blurred = read_frames(clip, "blurred", i, i + 1)[0]
        np.testing.assert_allclose(blurred, light, atol=0.51)
        image = tfp(read_spikes(clip, i, i + 1)[0, :56], threshold=2.0)
        assert np.abs(image - luma(light.astype(np.float32)) / 255).max() < 2 / 56 + 0.001


def test_a_recorded_video_validates_and_says_what_it_is(folder: Path, dataset: Path) -> None:
    assert validate(dataset) == []
    source = open_dataset(dataset).clips("train")[0].info.source
    assert "taken as 120 fps" in source, "1920 Hz * 4 / 64"
    assert folder.name in source


def test_recording_again_keeps_what_is_there(folder: Path, dataset: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in dataset.rglob("*")}
    record(folder, dataset)
    assert {p: p.stat().st_mtime_ns for p in dataset.rglob("*")} == before
    with pytest.raises(DataFormatError, match="another dataset"):
        record(folder, dataset, SETTINGS.model_copy(update={"seed": 3}))


def test_few_frames_are_in_memory_however_long_the_video(folder: Path) -> None:
    light = InterpolatedVideo(folder)
    most = 0
    for first in range(0, 24, 4):
        light.forget_before(first)
        light.at(np.linspace(first + 0.1, first + 4.1, 9))
        most = max(most, light.frames_in_memory)
    assert most <= 4 + 2


def test_flow_leaves_the_frames_themselves_as_they_are(folder: Path) -> None:
    frames = np.stack(list(iter_frames(folder))[:4])
    light = InterpolatedVideo(folder).at(np.arange(4.0))
    mixed = InterpolatedVideo(folder, interpolation="linear").at(np.arange(4.0))
    np.testing.assert_array_equal(light, mixed)
    np.testing.assert_allclose(light * 255, frames, atol=1e-4)


def test_a_pair_of_frames_has_its_flow_computed_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where frames of 4 follow one another in mid-pair; 3 frames of 4 touch 14 frames."""
    pairs: list[bytes] = []

    class Counted(FlowInterpolation):
        """Notes the pairs."""

        def __init__(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> None:
            pairs.append(first.tobytes())
            super().__init__(first, second)

    monkeypatch.setattr("vrtspike.simulate.video.FlowInterpolation", Counted)
    record(folder, tmp_path / "set")
    assert len(pairs) == len(set(pairs)) == 2 * 13
    assert validate(tmp_path / "set") == []


def test_flow_moves_the_light_that_is_recorded(folder: Path) -> None:
    """In mid-pair it is closer to the exact instant of the scene than the mixture is."""
    exact = moving_scene(15, 0).render(np.arange(1.5, 10))
    errors = [
        np.square(InterpolatedVideo(folder, 0, how).at(np.arange(1.5, 10)) - exact).mean()
        for how in ("linear", "flow")
    ]
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("interpolation", ["linear", "flow"])
def test_memory_does_not_grow_with_the_length_of_a_sequence(
    folder: Path, interpolation: str
) -> None:
    """What NumPy and Python hold at most, the flow of one pair among it."""
    source = inspect_video(folder)
    most = []
    for frames in (2, 2, 6):
        settings = VideoSettings.model_validate(
            {"frames": frames, "source_frames": 2, "splits": {"a": 1}}
            | {"steps_per_frame": 16, "exposure_steps": 14, "interpolation": interpolation}
        )
        light = InterpolatedVideo(folder, 0, settings.interpolation)
        info = describe_video(source, settings, CAMERA)
        tracemalloc.start()
        for _ in record_video(VideoTask("a", 0, 0), light, info, settings, CAMERA):
            pass
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert most[2] < most[1] + 3 * 48 * 64 * 3, "8 frames of the video more, none of them kept"


@pytest.mark.parametrize("weights", [{"a": 0.7, "b": 0.1, "c": 0.2}, {"a": 100.0, "b": 1, "c": 1}])
def test_sequences_are_dealt_out_whole(weights: dict[str, float]) -> None:
    for count in range(3, 40):
        shares = deal(count, weights)
        assert sum(shares.values()) == count
        assert min(shares.values()) >= 1
        assert shares["a"] == max(shares.values())


def write_video_file(path: Path, frames: list[NDArray[np.uint8]]) -> None:
    """Encode frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.bit_rate = 8_000_000
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def test_a_video_file_is_recorded_as_a_folder_is(tmp_path: Path) -> None:
    frames = [*moving_frames(16, 0), *moving_frames(14, 1, "chelsea.png")]
    write_video_file(tmp_path / "a.mp4", frames)
    video = inspect_video(tmp_path / "a.mp4")
    assert (video.frames, video.fps, video.shots) == (30, 25.0, ((0, 16), (16, 30)))
    decoded = list(iter_frames(tmp_path / "a.mp4", start=3))
    assert len(decoded) == 27
    assert np.abs(np.stack(decoded).astype(float) - np.stack(frames[3:])).mean() < 6
    record(tmp_path / "a.mp4", tmp_path / "set")
    assert validate(tmp_path / "set") == []


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("text.mp4", "cannot be decoded"),
        ("empty.mp4", "cannot be decoded"),
        ("folder", "holds no frame"),
        ("none.mp4", "no such video"),
    ):
        with pytest.raises(DataFormatError, match=message):
            inspect_video(tmp_path / name)


def test_sizes_that_change_and_videos_too_short_are_refused(tmp_path: Path) -> None:
    for i in range(5):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{i}.png")
    with pytest.raises(ConfigError, match=r"too short.*got 5 frames in 1 shots = 0 sequences"):
        video_tasks(inspect_video(tmp_path), SETTINGS)
    Image.new("RGB", (16, 18)).save(tmp_path / "3.png")
    with pytest.raises(DataFormatError, match=r"changes its size \[.*frame 3\]: got 18x16"):
        inspect_video(tmp_path)


def test_a_real_video_has_its_five_cuts(shared: Path) -> None:
    video = inspect_video(shared / "data" / "bikes.mp4")
    assert video.frames == 250
    assert [first for first, _ in video.shots] == [0, 30, 76, 137, 187, 242]
    tasks = video_tasks(video, VideoSettings())
    assert [task.split for task in tasks] == ["train", "train", "val", "held_out"]


def test_frames_of_a_folder_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for i in range(12):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / f"frame {i}.png")
    assert [int(frame[0, 0, 0]) for frame in iter_frames(tmp_path)] == list(range(12))


def test_a_file_without_pictures_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        samples.sample_rate = 8000
        container.mux(sound.encode(samples))
        container.mux(sound.encode())
    for read in (inspect_video, lambda path: next(iter_frames(path))):
        with pytest.raises(DataFormatError, match=r"no video format that is read \[.*a\.wav"):
            read(tmp_path / "a.wav")
        with pytest.raises(DataFormatError, match=r"no such video \[.*none\.mp4"):
            read(tmp_path / "none.mp4")
