"""Sequences out of videos: pieces of their frames, in order, without a cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.datasets.findings_of import validate
from tests.simulate.scene_folder import write_scenes
from vrtspike.config.camera import CameraSettings
from vrtspike.config.scenes import FilmSettings, SceneSettings
from vrtspike.datasets.index import open_dataset
from vrtspike.errors import ConfigError
from vrtspike.simulate.on_ray import with_absolute_paths
from vrtspike.simulate.recording import describe_scenes, scene_tasks
from vrtspike.simulate.video_clip import VideoClip
from vrtspike.spikes.timeline import Timeline

TIMELINE = Timeline(16, (2, 14), 8)


@pytest.fixture
def video(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes frames as a folder of images."""

    def write(frames: list[NDArray[np.uint8]], name: str = "film") -> Path:
        (tmp_path / name).mkdir()
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(tmp_path / name / f"{number:03d}.png")
        return tmp_path / name

    return write


def numbered(count: int, height: int = 40, width: int = 56) -> list[NDArray[np.uint8]]:
    """Return frames whose brightness is twice their number, with a texture that stands still."""
    texture = np.random.default_rng(0).integers(0, 60, (height, width, 3))
    return [(texture + 2 * number).astype(np.uint8) for number in range(count)]


def film(
    path: Path,
    seed: int = 0,
    size: tuple[int, int] = (16, 16),
    timeline: Timeline = TIMELINE,
    **settings: object,
) -> VideoClip:
    chosen = FilmSettings(videos=(path,), sequences=1, **settings)
    rng = np.random.default_rng(seed)
    return VideoClip(path, chosen, timeline, rng, frames=3, height=size[0], width=size[1])


@pytest.mark.parametrize("target", [0, 3, 8, 16])
def test_sharp_frames_are_frames_of_the_video_one_speed_apart(
    target: int, video: Callable[..., Path]
) -> None:
    frames = numbered(16)
    path = video(frames)
    for seed in range(6):
        timeline = Timeline(16, (0, 16), target)
        piece = film(path, seed, timeline=timeline, reduce=(1, 1), source_frames=(2, 4))
        seen = []
        for start in (0, 16, 32):  # as a frame is exposed: first the target, then all of it
            seen.append(piece.render(np.array([start + target], np.float64))[0] * 255)
            light = piece.render(start + np.arange(16) + 0.5)
            assert light.shape == (16, 16, 16, 3)
        speeds = np.diff([frame.mean() for frame in seen]) / 2
        assert speeds[0] == pytest.approx(speeds[1]) and round(speeds[0]) in (2, 3, 4)
        windows = np.lib.stride_tricks.sliding_window_view(frames[0], (16, 16, 3))[:, :, 0]
        detail = (seen[0] - seen[0].min()) - (windows - windows.min((2, 3, 4), keepdims=True))
        assert np.abs(detail).max((2, 3, 4)).min() < 1e-3, "an untouched piece of a frame"


def test_light_between_two_frames_lies_between_them(video: Callable[..., Path]) -> None:
    piece = film(video(numbered(40)), reduce=(1, 1), source_frames=(4, 4))
    light = piece.render(np.arange(0.0, 48.0)).mean(axis=(1, 2, 3)) * 255
    np.testing.assert_allclose(np.diff(light), 2 * 4 / 16, atol=0.02)


def test_a_smaller_video_is_averaged_over_its_pixels(video: Callable[..., Path]) -> None:
    path = video(numbered(20))
    piece = film(path, size=(20, 28), reduce=(2, 2), source_frames=(2, 2))
    first = np.asarray(Image.open(path / "000.png"), np.float64)
    expected = first.reshape(20, 2, 28, 2, 3).mean((1, 3))
    found = piece.render(np.array([8.0]))[0] * 255
    np.testing.assert_allclose(found - found.mean(), expected - expected.mean(), atol=0.51)


def test_no_piece_crosses_a_cut(video: Callable[..., Path]) -> None:
    dark = [np.full((20, 20, 3), 10, np.uint8)] * 9
    bright = [np.full((20, 20, 3), 200, np.uint8)] * 12
    path = video(dark + bright)
    means = set()
    for seed in range(12):
        piece = film(path, seed, reduce=(1, 1), source_frames=(2, 2))
        light = piece.render(np.arange(0.0, 48.0))
        assert np.ptp(light) < 1e-6
        means.add(round(float(light.mean() * 255)))
    assert means == {10, 200}


def test_videos_that_are_too_short_or_small_are_refused(video: Callable[..., Path]) -> None:
    path = video(numbered(7))
    with pytest.raises(ConfigError, match=r"no shot as long.*7 frames.*8 frames without a cut"):
        film(path, source_frames=(2, 2))
    with pytest.raises(ConfigError, match=r"smaller than the frames.*40x56.*64x64"):
        film(video(numbered(20), "other"), size=(64, 64), source_frames=(2, 2))


def test_films_join_the_training_split_alone(video: Callable[..., Path], tmp_path: Path) -> None:
    frames = [np.roll(frame, 3 * number, axis=1) for number, frame in enumerate(numbered(30))]
    films = FilmSettings(videos=(video(frames),), sequences=2, source_frames=(2, 3))
    scenes = SceneSettings(
        sequences={"train": 1, "held_out": 1},
        frames=3,
        height=16,
        width=16,
        steps_per_frame=16,
        exposure_steps=12,
        films=films,
    )
    names = [task.sequence for task in scene_tasks(scenes)]
    assert names == ["train_0000", "held_out_0000", "train_film_0000", "train_film_0001"]
    write_scenes(scenes, CameraSettings(), tmp_path / "set")
    dataset = open_dataset(tmp_path / "set")
    assert dataset.sequences("train") == ("train_0000", "train_film_0000", "train_film_0001")
    assert validate(tmp_path / "set") == []


def test_a_description_names_videos_wherever_they_lie() -> None:
    def scenes(path: str) -> SceneSettings:
        return SceneSettings(films=FilmSettings(videos=(Path(path),), sequences=1))

    here = describe_scenes(with_absolute_paths(scenes("a.mp4")), CameraSettings())
    assert here == describe_scenes(scenes("/elsewhere/a.mp4"), CameraSettings())
    assert '"a.mp4"' in here.source
