"""Flow-based interpolation is closer to the truth than mixing, and never far from it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vrtspike.config.scenes import SceneSettings
from vrtspike.simulate import interpolation as flow
from vrtspike.simulate.interpolation import FlowInterpolation, dense_flow, sample_at
from vrtspike.simulate.photographs import load_photograph
from vrtspike.simulate.recording import SceneTask, build_scene
from vrtspike.video.inspect import iter_frames

Image = NDArray[np.uint8]


def moved(x: int, y: int = 0) -> Image:
    """Return the astronaut, box-averaged by 4, moved by (x, y) / 4 pixels to the left and up."""
    crop = load_photograph("astronaut.png")[40 + y : 424 + y, 40 + x : 424 + x].astype(np.float64)
    return np.rint(crop.reshape(96, 4, 96, 4, 3).mean(axis=(1, 3))).astype(np.uint8)


def psnr(image: NDArray[np.float32], truth: Image, margin: int = 8) -> float:
    """Compare an image in [0, 1] with a frame, its margin aside."""
    inside = (slice(margin, -margin),) * 2
    error = image[inside].astype(np.float64) - truth[inside] / 255
    return float(-10 * np.log10(np.mean(error**2)))


def mixed(first: Image, second: Image, share: float) -> NDArray[np.float64]:
    """Return the linear mixture."""
    return ((1 - share) * first.astype(np.float64) + share * second) / 255


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
@pytest.mark.parametrize(("x", "y"), [(24, 0), (-16, 8), (12, -20)])
def test_a_moved_photograph_is_met_between_its_frames(x: int, y: int, share: float) -> None:
    first, second = moved(0), moved(x, y)
    truth = moved(round(share * x), round(share * y))
    by_flow = psnr(FlowInterpolation(first, second).at(share), truth, margin=12)
    assert by_flow > psnr(mixed(first, second, share), truth, margin=12) + 8
    assert by_flow > (27 if share * x % 4 or share * y % 4 else 40), "half pixels soften"


def test_the_flow_is_the_motion() -> None:
    """(x, y) in pixels: what moves to the left by 6 has the flow (-6, 0)."""
    found = dense_flow(moved(0), moved(24, 8))
    assert found.shape == (96, 96, 2) and found.dtype == np.float32
    np.testing.assert_allclose(np.median(found, axis=(0, 1)), (-6, -2), atol=0.1)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 64), (40, 9), (17, 300), (33, 35)])
def test_frames_of_all_sizes_have_a_flow(height: int, width: int) -> None:
    """DIS refuses small frames, and crashes on low ones."""
    first, second = (np.resize(image, (height, width, 3)) for image in (moved(0), moved(24)))
    assert dense_flow(first, second).shape == (height, width, 2)
    light = FlowInterpolation(first, second).at(0.5)
    assert light.shape == (height, width, 3) and np.isfinite(light).all()


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (1e-3, -1e-3), (300.0, -300.0)])
def test_beyond_the_edge_lies_the_edge(channels: int, x: float, y: float) -> None:
    values = np.random.default_rng(0).random((33, 40, channels)).astype(np.float32)
    found = sample_at(values, np.broadcast_to(np.float32([x, y]), (33, 40, 2)))
    expected = values if abs(x) < 1 else np.broadcast_to(values[0, -1], values.shape)
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_it_ends_in_the_frames() -> None:
    first, second = moved(0), moved(24, 8)
    pair = FlowInterpolation(first, second)
    np.testing.assert_allclose(pair.at(1e-4), first / 255, atol=2e-3)
    np.testing.assert_allclose(pair.at(1 - 1e-4), second / 255, atol=2e-3)


def test_where_nothing_moves_nothing_changes() -> None:
    photograph, black = moved(0), np.zeros((48, 50, 3), np.uint8)
    for frame in (photograph, black, black + 255):
        light = FlowInterpolation(frame, frame).at(0.4)
        assert light.dtype == np.float32
        np.testing.assert_allclose(light, frame / 255, atol=1e-5)
        assert 0 <= light.min() <= light.max() <= 1


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_flow_that_does_not_lead_back_is_not_trusted(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both frames are said to move the same way: the light is the mixture, unmoved."""
    first, second = moved(0), moved(24)
    monkeypatch.setattr(flow, "dense_flow", lambda *_: np.full((96, 96, 2), 120, np.float32))
    light = FlowInterpolation(first, second).at(share)
    np.testing.assert_allclose(light, mixed(first, second, share), atol=0.01)


@pytest.mark.parametrize("index", range(4))
def test_scenes_with_objects_in_front_are_closer_by_flow(index: int) -> None:
    """Rendered scenes are exact at any instant, and hide and uncover what is behind."""
    settings = SceneSettings(frames=2, height=96, width=128, motion=(5.0, 8.0), objects=(2, 3))
    scene, _ = build_scene(SceneTask("train", index), settings)
    first, truth, second = (
        np.rint(image * 255).astype(np.uint8) for image in scene.render([36.0, 64.0, 92.0])
    )
    by_flow = psnr(FlowInterpolation(first, second).at(0.5), truth)
    assert by_flow > psnr(mixed(first, second, 0.5), truth) + 0.8


def test_a_real_video_is_closer_by_flow(shared: Path) -> None:
    """Every second frame is left out; the pairs around it are interpolated."""
    frames = list(islice(iter_frames(shared / "data" / "bikes.mp4"), 30))
    found, gains = [], []
    for i in range(2, 28, 5):
        first, truth, second = frames[i - 1 : i + 2]
        found.append(psnr(FlowInterpolation(first, second).at(0.5), truth))
        gains.append(found[-1] - psnr(mixed(first, second, 0.5), truth))
    assert min(gains) > 8
    assert np.mean(found) > 43
