"""Gray frames on the spike grid."""

from __future__ import annotations

import numpy as np
import pytest

from vrtspike.errors import ConfigError
from vrtspike.spikes.gray import box_reduce, gray_on_grid, luma


def test_luma_of_gray_is_gray_and_green_weighs_most() -> None:
    assert luma(np.full((2, 3), 0.5, np.float32)) == pytest.approx(0.5)
    assert np.argsort(luma(np.eye(3, dtype=np.float32))).tolist() == [2, 0, 1]


def test_box_reduction_keeps_the_light() -> None:
    gray = np.random.default_rng(0).random((2, 8, 12), np.float32)
    small = box_reduce(gray, 4)
    assert small.shape == (2, 2, 3)
    assert small[1, 1, 2] == pytest.approx(gray[1, 4:8, 8:12].mean())
    with pytest.raises(ConfigError, match="does not divide"):
        box_reduce(gray, 5)


def test_a_frame_on_a_coarser_grid_is_the_mean_over_its_pixels() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    gray = luma(rgb.astype(np.float32))[None] / 255
    np.testing.assert_allclose(gray_on_grid(rgb, 4, 6), box_reduce(gray, 2)[0], atol=1e-6)
    np.testing.assert_allclose(gray_on_grid(rgb, 8, 12), gray[0], atol=1e-6)
