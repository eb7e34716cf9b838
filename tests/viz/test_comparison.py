"""Pictures point to the worst place and lose nothing on the way into a page."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from vrtspike.viz.comparison import Place, data_uri, error_map, hardest_place


def test_the_hardest_place_is_where_the_error_is() -> None:
    sharp = np.zeros((40, 60, 3), np.uint8)
    blurred = sharp.copy()
    blurred[25:33, 41:49] = 200
    assert hardest_place(blurred, sharp, 8) == Place(25, 41, 8)
    assert hardest_place(blurred, sharp, 100) == Place(0, 9, 40)


def test_error_colours_grow_lighter_with_the_error() -> None:
    sharp = np.zeros((1, 6, 3), np.uint8)
    image = sharp + np.array([0, 10, 20, 30, 40, 250], np.uint8)[None, :, None]
    lightness = error_map(image, sharp, full=40)[0].astype(int) @ (299, 587, 114)
    assert np.all(np.diff(lightness)[:4] > 0)
    assert lightness[5] == lightness[4]


def test_small_images_are_embedded_without_loss_and_large_ones_are_not_huge() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    kind, content = data_uri(noise).split(",")
    assert kind == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))), noise)
    ramp = np.linspace(0, 255, 720 * 1280 * 3).astype(np.uint8).reshape(720, 1280, 3)
    large = data_uri(ramp)
    assert large.startswith("data:image/webp")
    assert len(large) < 400_000
