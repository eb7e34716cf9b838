"""Pairs out of videos: their flow is the motion, and unknown where something is hidden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vrtspike.config.scenes import FilmSettings
from vrtspike.simulate.photographs import load_photograph
from vrtspike.simulate.video_clip import inspected
from vrtspike.simulate.video_pairs import VideoPairs

PHOTOGRAPH = load_photograph("coffee.png")


def video(folder: Path, frames: list[NDArray[np.uint8]]) -> Path:
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:03d}.png")
    return folder


@pytest.fixture
def panned(tmp_path: Path) -> Path:
    """Return a video whose camera moves by (4, 2) pixels a frame to the right and down."""
    views = [PHOTOGRAPH[2 * n : 2 * n + 300, 4 * n : 4 * n + 400] for n in range(12)]
    return video(tmp_path / "panned", views)


def pairs(path: Path, seed: int = 0, apart: int = 1, reduce: int = 1) -> VideoPairs:
    settings = FilmSettings(
        videos=(path,), sequences=1, source_frames=(apart, apart), reduce=(reduce, reduce)
    )
    return VideoPairs(inspected(path), settings, 0.8, np.random.default_rng(seed))


@pytest.mark.parametrize(("apart", "reduce", "scale"), [(1, 1, 1), (3, 2, 1), (2, 1, 2), (4, 1, 4)])
def test_the_flow_is_the_motion_and_back_its_opposite(
    panned: Path, apart: int, reduce: int, scale: int
) -> None:
    found = pairs(panned, apart=apart, reduce=reduce)
    for _ in range(4):
        (there, flow), (back, opposite) = found.draw(48, 64, scale)
        assert there.shape == (2, 3, 48, 64) and there.dtype == np.uint8
        assert flow.shape == (2, 48, 64) and flow.dtype == np.float32
        np.testing.assert_array_equal(there, back[::-1])
        expected = np.array([-4, -2]) * apart / reduce / scale
        np.testing.assert_allclose(np.nanmedian(flow, axis=(1, 2)), expected, atol=0.15)
        np.testing.assert_allclose(np.nanmedian(opposite, axis=(1, 2)), -expected, atol=0.15)
        assert np.isfinite(flow).mean() > 0.7


def test_what_is_hidden_or_leaves_has_no_flow(tmp_path: Path) -> None:
    """A square moves over a photograph that stands still, by 6 pixels a frame."""
    square = PHOTOGRAPH[200:240, 200:240, ::-1]
    frames = []
    for n in range(5):
        frame = PHOTOGRAPH[:96, :128].copy()
        frame[28:68, 20 + 6 * n : 60 + 6 * n] = square
        frames.append(frame)
    found = pairs(video(tmp_path / "square", frames))
    for _ in range(4):
        (_, flow), _ = found.draw(96, 128, 1)
        known = np.isfinite(flow[0])
        assert 0.7 < known.mean() < 0.999
        x = np.nan_to_num(flow[0])
        moving = np.argwhere(known & (np.abs(x - 6) < 0.5))
        assert len(moving) > 1000
        y0, (y1, x1) = moving.min(axis=0)[0], moving.max(axis=0)
        assert 24 <= y0 <= 32 and 64 <= y1 <= 72, "the rows of the square"
        # Right beside the square lies what it hides next.
        hidden = known[36:60, x1 + 2 : x1 + 5]
        assert hidden.mean() < 0.5


def test_pairs_are_functions_of_the_draw_and_never_cross_a_cut(tmp_path: Path) -> None:
    dark = [np.full((64, 64, 3), 10, np.uint8)] * 9
    bright = [np.full((64, 64, 3), 200, np.uint8)] * 9
    path = video(tmp_path / "cut", dark + bright)
    means = set()
    for seed in range(12):
        found = pairs(path, seed, apart=3)
        (frames, _), _ = found.draw(32, 32, 1)
        again, _ = pairs(path, seed, apart=3).draw(32, 32, 1)
        np.testing.assert_array_equal(frames, again[0])
        first, second = frames.mean(axis=(1, 2, 3))
        assert abs(first - second) < 60
        means.add(bool(frames.mean() > 100))
    assert means == {False, True}
