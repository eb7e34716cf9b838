"""Disturbed spikes are what the disturbance says, and the same whenever they are asked for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vrtspike.evaluation.corruptions import (
    KINDS,
    Corruption,
    Kind,
    generator,
    levels_of,
    shift_in_space,
    shift_in_time,
    undisturbed,
)

STEPS, SIZE = 64, (40, 48)


@pytest.fixture
def spikes() -> NDArray[np.bool_]:
    return np.random.default_rng(0).random((STEPS, *SIZE)) < 0.3


def rng(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", KINDS)
def test_one_level_changes_nothing_and_no_level_changes_the_input(
    kind: Kind, spikes: NDArray[np.bool_]
) -> None:
    before = spikes.copy()
    levels = levels_of(kind)
    assert undisturbed(kind) in levels and list(levels) == sorted(levels)
    for level in levels:
        disturbance = Corruption(kind, level)
        start = 10 if kind == "time" else 0
        found = disturbance.apply(spikes, start, 40, rng())
        assert found.shape == (40, *SIZE) and found.dtype == bool
        same = np.array_equal(found, spikes[start : start + 40])
        assert same == (level == undisturbed(kind))
    np.testing.assert_array_equal(spikes, before)


def test_a_higher_threshold_keeps_every_nth_spike(spikes: NDArray[np.bool_]) -> None:
    disturbance = Corruption("threshold", 4.0)
    found = disturbance.apply(spikes, 0, STEPS, rng())
    assert not (found & ~spikes).any()
    counts = np.abs(found.sum(axis=0) - spikes.sum(axis=0) / 4)
    assert counts.max() <= 1
    assert disturbance.threshold_factor == 4
    assert Corruption("dropped", 0.5).threshold_factor == 1


@pytest.mark.parametrize("offset", [-3, 0, 5])
def test_offsets_in_time_take_steps_of_the_stream(offset: int, spikes: NDArray[np.bool_]) -> None:
    found = shift_in_time(spikes, 10, 20, offset)
    np.testing.assert_array_equal(found, spikes[10 + offset : 30 + offset])
    assert Corruption("time", float(offset)).reach == abs(offset)
    assert Corruption("space", 8.0).reach == 0


def test_the_ends_of_a_stream_are_mirrored() -> None:
    steps = np.eye(6, dtype=bool)[:, :, None]  # step i fires at pixel i
    order = shift_in_time(steps, 0, 4, -2)[..., 0].argmax(axis=1).tolist()
    assert order == [1, 0, 0, 1]
    order = shift_in_time(steps, 2, 4, 3)[..., 0].argmax(axis=1).tolist()
    assert order == [5, 5, 4, 3]
    one = shift_in_time(steps[:1], 0, 1, 8)
    np.testing.assert_array_equal(one, steps[:1])


def test_a_shift_in_space_goes_down_and_right_and_repeats_the_edge(
    spikes: NDArray[np.bool_],
) -> None:
    found = shift_in_space(spikes, 3)
    np.testing.assert_array_equal(found[:, 3:, 3:], spikes[:, :-3, :-3])
    np.testing.assert_array_equal(found[:, :3, 3:], spikes[:, :1, :-3].repeat(3, axis=1))
    np.testing.assert_array_equal(found[:, 3:, 0], spikes[:, :-3, 0])
    beyond = shift_in_space(spikes, 1000)
    np.testing.assert_array_equal(beyond, np.broadcast_to(spikes[:, :1, :1], spikes.shape))


def test_random_numbers_depend_on_all_that_they_should_and_on_nothing_else() -> None:
    first = Corruption("dropped", 0.1)
    base = generator(0, "a", "000001", first).random(4).tolist()
    assert generator(0, "a", "000001", Corruption("dropped", 0.1)).random(4).tolist() == base
    others = [
        generator(1, "a", "000001", first),
        generator(0, "b", "000001", first),
        generator(0, "a", "000002", first),
        generator(0, "a0", "00001", first),
        generator(0, "a", "000001", Corruption("noise", 0.1)),
        generator(0, "a", "000001", Corruption("dropped", 0.2)),
    ]
    found = [tuple(other.random(4)) for other in others]
    assert len({tuple(base), *found}) == 7
