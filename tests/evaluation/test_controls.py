"""Controls are what their formulas say, on the frame's grid, and beat nothing by accident."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vrtspike.datasets.clip import read_frames, read_spikes
from vrtspike.datasets.index import open_dataset
from vrtspike.evaluation.controls import controls


def run(blurred: NDArray[np.uint8], spikes: NDArray[np.bool_]) -> dict[str, NDArray[np.uint8]]:
    return controls(
        blurred,
        spikes,
        threshold=2.0,
        exposure=(0, 32),
        target_step=16,
        tfp_steps=16,
        sdm_steps=8,
    )


def regular_spikes(period: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    spikes = np.zeros((32, *size), bool)
    spikes[period - 1 :: period] = True
    return spikes


def test_a_still_scene_comes_back_at_its_brightness() -> None:
    blurred = np.full((12, 20, 3), (128, 64, 32), np.uint8)
    images = run(blurred, regular_spikes(4, (12, 20)))
    assert list(images) == ["blurred", "tfp", "tfi", "sdm"]
    for name in ("tfp", "tfi"):
        assert np.all(images[name] == round(255 * 2.0 / 4))
    assert np.array_equal(images["sdm"], blurred)
    assert images["blurred"] is blurred


def test_sdm_follows_the_brightness_at_the_target() -> None:
    blurred = np.full((8, 8, 3), 100, np.uint8)
    spikes = regular_spikes(4, (8, 8))
    spikes[:12], spikes[20:] = False, False
    spikes[12:20] = True
    brighter = run(blurred, spikes)["sdm"]
    assert np.all(brighter > 2 * 100)
    spikes = ~spikes
    assert np.all(run(blurred, spikes)["sdm"] < 10)


def test_pixels_that_never_fire_keep_the_blurred_value() -> None:
    blurred = np.full((8, 8, 3), 7, np.uint8)
    images = run(blurred, np.zeros((32, 8, 8), bool))
    assert np.array_equal(images["sdm"], blurred)
    assert images["tfp"].max() == images["tfi"].max() == 0


def test_a_coarser_spike_grid_is_brought_to_the_frames_grid() -> None:
    blurred = np.full((16, 24, 3), 90, np.uint8)
    spikes = np.zeros((32, 8, 12), bool)
    spikes[:, :, 6:] = True
    images = run(blurred, spikes)
    assert all(image.shape == (16, 24, 3) for image in images.values())
    assert images["tfp"][:, :11].max() == 0
    assert images["tfp"][:, 13:].min() == 255


def test_controls_undo_some_blur_of_a_moving_scene(
    tmp_path: Path, moving_photograph: Callable[..., Path]
) -> None:
    (clip,) = open_dataset(moving_photograph(tmp_path, {"a": 3}, pixels_a_frame=24)).clips(
        "held_out"
    )
    info = clip.info
    sharp = read_frames(clip, "sharp")[1].astype(float)
    images = controls(
        read_frames(clip, "blurred")[1],
        read_spikes(clip)[1],
        threshold=info.spike.threshold,
        exposure=info.exposure,
        target_step=info.target_step,
        tfp_steps=16,
        sdm_steps=28,
    )
    error = {name: np.abs(image - sharp).mean() for name, image in images.items()}
    assert error["sdm"] < 0.9 * error["blurred"]


def test_the_genuine_camera_file_gives_the_known_image(shared: Path) -> None:
    """28.5 dB against the sharp frame, box-reduced and gray (see ../shared/data/README.md)."""
    from PIL import Image

    from vrtspike.spikes.stream import SpikeStream

    stream = SpikeStream.open(shared / "data" / "spk_gopro_000226.dat", height=360, width=640)
    sharp = np.asarray(Image.open(shared / "data" / "spk_gopro_000226.png").convert("RGB"))
    reduced = sharp.reshape(360, 2, 640, 2, 3).mean(axis=(1, 3)) @ (0.299, 0.587, 0.114)
    images = controls(
        np.zeros((360, 640, 3), np.uint8),
        stream[0:88],
        threshold=2.0,
        exposure=(0, 88),
        target_step=40,
        tfp_steps=32,
        sdm_steps=32,
    )
    error = np.square(images["tfp"][..., 0] - reduced).mean()
    assert 10 * np.log10(255**2 / error) == pytest.approx(28.75, abs=0.25)
