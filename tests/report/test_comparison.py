"""Pictures point to the worst place and lose nothing on the way into a page."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from vrtspike.report.comparison import Place, data_uri, error_map, error_of, hardest_places


def test_the_hardest_places_are_where_the_errors_are() -> None:
    sharp = np.zeros((48, 60, 3), np.uint8)
    blurred = sharp.copy()
    blurred[25:33, 41:49] = 200
    blurred[2:10, 5:13] = 100
    blurred[33:35, 41:49] = 100
    first, second, third = hardest_places(blurred, sharp, 8, 3)
    assert (first, second) == (Place(25, 41, 8), Place(2, 5, 8))
    # Beside the first one, though a square that overlaps it differs more.
    assert third.top == 33
    assert hardest_places(blurred, sharp, 100, 1) == [Place(0, 1, 48)]


def test_no_two_places_overlap_and_there_are_no_more_than_differ() -> None:
    rng = np.random.default_rng(0)
    sharp, blurred = rng.integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    places = hardest_places(blurred, sharp, 16, 3)
    assert len(places) == 3
    for i, one in enumerate(places):
        for other in places[:i]:
            assert max(abs(one.top - other.top), abs(one.left - other.left)) >= 16
    errors = [
        error_of(blurred, sharp)[p.top : p.top + 16, p.left : p.left + 16].sum() for p in places
    ]
    assert errors == sorted(errors, reverse=True)
    assert len(hardest_places(sharp, sharp, 16, 3)) == 1
    sharp[...], blurred[...] = 0, 0
    blurred[8:16, 8:16] = 9
    assert hardest_places(blurred, sharp, 8, 3) == [Place(8, 8, 8)]
    assert len(hardest_places(blurred, sharp, 40, 9)) == 1, "no second one fits beside it"


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
