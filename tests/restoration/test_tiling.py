"""Tiles cover an axis, share what was asked for, and their weights sum to one."""

from __future__ import annotations

import itertools

import pytest
import torch

from vrtspike.errors import ConfigError
from vrtspike.restoration.tiling import cover

CASES = [
    (length, tile, overlap, multiple)
    for length, tile, overlap, multiple in itertools.product(
        (1, 2, 7, 41, 97, 100, 333), (2, 6, 20, 64), (0, 1, 2, 10, 16), (1, 4, 8)
    )
    if tile // multiple * multiple >= max(2 * -(-overlap // multiple) * multiple, 1)
]


@pytest.mark.parametrize("multiple", [1, 4, 8])
def test_weights_sum_to_one_and_no_tile_is_larger_than_asked(multiple: int) -> None:
    for length, tile, overlap, _ in (case for case in CASES if case[3] == multiple):
        total = torch.zeros(length)
        for part in cover(length, tile, overlap, multiple=multiple):
            assert part.stop - part.start <= max(tile, 1)
            assert part.weights.min() >= 0
            total[part.start : part.stop] += part.weights
        assert torch.allclose(total, torch.ones(length), atol=1e-6), (length, tile, overlap)


def test_neighbours_share_the_overlap_and_ends_are_multiples() -> None:
    for length, tile, overlap, multiple in CASES:
        tiles = cover(length, tile, overlap, multiple=multiple)
        assert tiles[0].start == 0
        assert tiles[-1].stop == length
        for before, after in itertools.pairwise(tiles):
            assert before.stop - after.start >= overlap
            assert after.start > before.start
            assert after.start % multiple == 0
            assert before.stop % multiple == 0


def test_samples_without_context_count_nothing() -> None:
    first, second = cover(40, 24, 8)
    assert first.weights[-2:].tolist() == [0, 0]
    assert second.weights[:2].tolist() == [0, 0]
    assert first.weights[:16].tolist() == [1] * 16


def test_an_axis_that_fits_is_one_tile() -> None:
    for tile in (None, 10, 50):
        (whole,) = cover(10, tile, 4)
        assert (whole.start, whole.stop) == (0, 10)
        assert whole.weights.tolist() == [1] * 10


def test_tiles_of_256_cost_little_at_720p_in_space() -> None:
    rows, columns = cover(720, 256, 32, multiple=8), cover(1280, 256, 32, multiple=8)
    pixels = sum(
        (r.stop - r.start) * (c.stop - c.start) for r, c in itertools.product(rows, columns)
    )
    assert pixels <= 1.35 * 720 * 1280


def test_tiles_that_share_more_than_they_keep_are_refused() -> None:
    with pytest.raises(ConfigError, match="overlap"):
        cover(100, 16, 12)
