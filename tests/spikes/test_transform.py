"""Spikes of another threshold, clock or place are those that such a rig would have given."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from vrtspike.simulate.camera import SpikeCamera
from vrtspike.spikes.transform import (
    Distortion,
    Misregistration,
    Part,
    add_noise,
    draw_distortion,
    lose_spikes,
    raise_threshold,
)

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("factor", [1, 2, 3, 7])
def test_every_nth_spike_is_that_of_a_camera_of_n_times_the_threshold(factor: int) -> None:
    light = RNG.random((400, 6, 5), np.float32)
    low = SpikeCamera(6, 5, threshold=1.0, rng=RNG)
    high = SpikeCamera(6, 5, threshold=float(factor), rng=RNG)
    low.charge[:], high.charge[:] = 0.25, 0.25
    spikes = low.expose(light)
    kept = raise_threshold(spikes[None], factor, np.random.default_rng(0))[0]
    found, expected = np.cumsum(kept, axis=0), np.cumsum(high.expose(light), axis=0)
    assert (np.abs(found - expected) <= 1).all(), "a phase is drawn, so by one spike at most"
    exact = raise_threshold(spikes[None], factor, _Zeros())[0]  # type: ignore[arg-type]
    if factor in (1, 2):  # sums of float32 thresholds stay exact enough
        np.testing.assert_array_equal(np.cumsum(exact, axis=0), np.cumsum(spikes, axis=0) // factor)


class _Zeros:
    """A generator whose phases are all 0."""

    def integers(self, low: int, high: int, shape: tuple[int, ...], dtype: type) -> object:
        return np.zeros(shape, dtype)


def test_phases_are_uniform_so_the_rate_is_kept() -> None:
    spikes = RNG.random((3, 60, 40, 40)) < 0.4
    kept = raise_threshold(spikes, 4, np.random.default_rng(1))
    assert 4 * kept.mean() == pytest.approx(spikes.mean(), rel=0.01)
    assert not (kept & ~spikes).any()


def test_draws_stay_within_what_was_asked() -> None:
    rng = np.random.default_rng(2)
    drawn = [draw_distortion(rng, (1, 2, 4), 5) for _ in range(800)]
    assert {d.threshold_factor for d in drawn} == {1, 2, 4}
    assert {d.shift for d in drawn} == set(range(-5, 6))
    assert np.mean([abs(d.shift) <= 1 for d in drawn]) > 0.5, "most rigs are nearly right"
    still = {draw_distortion(rng, (1,), 0) for _ in range(20)}
    assert still == {Distortion()}


def test_a_share_of_the_samples_has_no_spikes_and_the_others_draws_stay() -> None:

    def drawn(share: float) -> list[Distortion]:
        seeds = (np.random.default_rng(seed) for seed in range(600))
        return [draw_distortion(rng, (1, 2), 5, share) for rng in seeds]

    some, none = drawn(0.25), drawn(0.0)
    assert 0.2 < np.mean([d.dropped for d in some]) < 0.3
    assert not any(d.dropped for d in none) and all(d.dropped for d in drawn(1.0))
    assert [(d.threshold_factor, d.shift) for d in some] == [
        (d.threshold_factor, d.shift) for d in none
    ]


HEIGHT, WIDTH = 40, 52
EVERYTHING = {"shift": 3.0, "rotate": 2.0, "scale": 0.03, "noise": 0.02, "lost": 0.1}


@pytest.fixture
def spikes() -> NDArray[np.bool_]:
    """Return the spikes (t, s, h, w) of a whole frame."""
    return np.random.default_rng(0).random((2, 12, HEIGHT, WIDTH)) < 0.3


def seen(
    place: Misregistration, spikes: NDArray[np.bool_], crop: Part, grid: int = 1
) -> NDArray[np.bool_]:
    """Read what a crop shows, as samples do: no more than is needed."""
    read = place.reading(crop, (HEIGHT, WIDTH), grid)
    return place.apply(spikes[:, :, *read], read, crop, grid)


CROPS = [np.s_[12:28, 16:36], np.s_[0:40, 0:52], np.s_[30:40, 0:10]]


@pytest.mark.parametrize("crop", CROPS)
def test_a_registered_camera_shows_the_crop_and_no_more_is_read(
    crop: Part, spikes: NDArray[np.bool_]
) -> None:
    place = Misregistration()
    assert place.reading(crop, (HEIGHT, WIDTH), 2) == crop
    np.testing.assert_array_equal(seen(place, spikes, crop, 2), spikes[:, :, *crop])


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("grid", [1, 2])
def test_whole_shifts_move_the_picture_down_and_right_and_repeat_the_edge(
    crop: Part, grid: int, spikes: NDArray[np.bool_]
) -> None:
    for down, right in ((3, 0), (0, -2), (-4, 5)):
        place = Misregistration(down=grid * down, right=grid * right)
        rows = np.clip(np.arange(HEIGHT) - down, 0, HEIGHT - 1)
        columns = np.clip(np.arange(WIDTH) - right, 0, WIDTH - 1)
        moved = spikes[:, :, rows[:, None], columns]
        np.testing.assert_array_equal(seen(place, spikes, crop, grid), moved[:, :, *crop])
        rolled = np.roll(spikes, (down, right), axis=(2, 3))[:, :, 12:28, 16:36]
        if crop == CROPS[0]:
            np.testing.assert_array_equal(seen(place, spikes, crop, grid), rolled)


def test_shifts_of_less_than_half_a_pixel_of_the_grid_show_the_same(
    spikes: NDArray[np.bool_],
) -> None:
    crop = CROPS[0]
    still = seen(Misregistration(), spikes, crop)
    np.testing.assert_array_equal(seen(Misregistration(0.49, -0.49), spikes, crop), still)
    one = seen(Misregistration(down=1.0), spikes, crop)
    np.testing.assert_array_equal(seen(Misregistration(down=0.51), spikes, crop), one)
    np.testing.assert_array_equal(seen(Misregistration(down=1.9), spikes, crop, 4), still)
    np.testing.assert_array_equal(seen(Misregistration(down=2.1), spikes, crop, 4), one)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize(("grid", "turn", "scale"), [(1, 5.0, 1.0), (2, -3.0, 1.1), (1, 90, 0.8)])
def test_each_pixel_shows_the_one_that_was_turned_and_scaled_to_it(
    crop: Part, grid: int, turn: float, scale: float, spikes: NDArray[np.bool_]
) -> None:
    place = Misregistration(down=1.3, right=-2.2, turn=turn, scale=scale)
    found = seen(place, spikes, crop, grid)
    rows, columns = crop
    y0, x0 = (rows.start + rows.stop - 1) / 2, (columns.start + columns.stop - 1) / 2
    for y in range(rows.start, rows.stop):
        for x in range(columns.start, columns.stop):
            # Polar, clockwise on the screen from the right: y points down.
            dy, dx = y - y0 - place.down / grid, x - x0 - place.right / grid
            angle = math.atan2(dy, dx) - math.radians(turn)
            length = math.hypot(dy, dx) / scale
            at = (y0 + length * math.sin(angle), x0 + length * math.cos(angle))
            if min(abs(value % 1 - 0.5) for value in at) < 1e-6:
                continue  # between two pixels
            i = min(max(round(at[0]), 0), HEIGHT - 1)
            j = min(max(round(at[1]), 0), WIDTH - 1)
            np.testing.assert_array_equal(
                found[:, :, y - rows.start, x - columns.start], spikes[:, :, i, j]
            )


def test_a_quarter_turn_of_a_square_is_that_of_its_array(spikes: NDArray[np.bool_]) -> None:
    crop = np.s_[10:26, 20:36]
    found = seen(Misregistration(turn=90.0), spikes, crop)
    np.testing.assert_array_equal(found, np.rot90(spikes[:, :, *crop], -1, axes=(2, 3)))


def test_places_noise_and_loss_are_drawn_within_their_limits_and_leave_the_other_draws() -> None:
    plain, other = [], []
    for seed in range(400):
        first, second, before = (np.random.default_rng(seed) for _ in range(3))
        plain.append(draw_distortion(first, (1, 2), 5, 0.25))
        other.append(draw_distortion(second, (1, 2), 5, 0.25, **EVERYTHING))
        before.integers(2), before.random(), before.random()
        following = {rng.random() for rng in (first, second, before)}
        assert len(following) == 1, "what follows stays, too"
    for d, p in zip(other, plain, strict=True):
        assert (d.threshold_factor, d.shift, d.dropped) == (p.threshold_factor, p.shift, p.dropped)
        assert (p.place, p.noise, p.lost) == (Misregistration(), 0.0, 0.0)
    for values, low, high in (
        ([d.place.down for d in other], -3.0, 3.0),
        ([d.place.right for d in other], -3.0, 3.0),
        ([d.place.turn for d in other], -2.0, 2.0),
        ([d.place.scale for d in other], 0.97, 1.03),
        ([d.noise for d in other], 0.0, 0.02),
        ([d.lost for d in other], 0.0, 0.1),
    ):
        spread = high - low
        assert low <= min(values) < low + 0.05 * spread
        assert high - 0.1 * spread < max(values) <= high
        usual = 0.0 if low in (-3.0, -2.0) else low if low == 0.0 else 1.0
        near = np.abs(np.array(values) - usual) <= max(high - usual, usual - low) / 8
        assert near.mean() == pytest.approx(0.5, abs=0.1), "half of the rigs are nearly right"
    table = [
        [d.place.down, d.place.right, d.place.turn, d.place.scale, d.noise, d.lost] for d in other
    ]
    assert np.abs(np.corrcoef(table, rowvar=False) - np.eye(6)).max() < 0.2


def test_a_distortion_raises_the_threshold_then_loses_and_then_adds(
    spikes: NDArray[np.bool_],
) -> None:
    raised = raise_threshold(spikes, 2, np.random.default_rng(5))
    found = Distortion(2).apply(spikes, np.random.default_rng(5))
    np.testing.assert_array_equal(found, raised)
    fewer = Distortion(2, lost=0.5).apply(spikes, np.random.default_rng(5))
    assert not (fewer & ~raised).any() and fewer.sum() == pytest.approx(raised.sum() / 2, rel=0.1)
    more = Distortion(2, noise=0.1).apply(spikes, np.random.default_rng(5))
    assert not (raised & ~more).any()
    assert more[~raised].mean() == pytest.approx(0.1, rel=0.1)
    assert Distortion(lost=1.0, noise=0.1).apply(spikes, np.random.default_rng(5)).any()
    off = Distortion(noise=0.1, dropped=True).apply(spikes, np.random.default_rng(5))
    assert off.shape == spikes.shape and not off.any()
    assert Distortion().apply(spikes, np.random.default_rng(5)) is spikes


@pytest.mark.parametrize("probability", [0.05, 0.2, 0.5])
def test_each_spike_is_lost_with_the_probability(probability: float) -> None:
    spikes = RNG.random((64, 40, 48)) < 0.3
    before = spikes.copy()
    kept = lose_spikes(spikes, probability, np.random.default_rng(7))
    assert not (kept & ~spikes).any()
    assert kept.sum() / spikes.sum() == pytest.approx(1 - probability, abs=0.01)
    # Independently: what is lost in one step says nothing of the next.
    lost = (spikes & ~kept)[:-1][spikes[:-1] & spikes[1:]]
    after = (spikes & ~kept)[1:][spikes[:-1] & spikes[1:]]
    assert abs(np.corrcoef(lost, after)[0, 1]) < 0.02
    np.testing.assert_array_equal(spikes, before)


@pytest.mark.parametrize("probability", [0.005, 0.1])
def test_noise_fires_with_the_probability_and_loses_no_spike(probability: float) -> None:
    spikes = RNG.random((64, 40, 48)) < 0.3
    noisy = add_noise(spikes, probability, np.random.default_rng(7))
    assert not (spikes & ~noisy).any()
    assert noisy[~spikes].mean() == pytest.approx(probability, rel=0.15)
