"""Spikes of another threshold or clock are those that such a camera would have given."""

from __future__ import annotations

import numpy as np
import pytest

from vrtspike.data.alignment import Timeline
from vrtspike.data.distort import Distortion, draw_distortion, raise_threshold
from vrtspike.simulate.camera import SpikeCamera

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


def test_draws_stay_within_what_was_asked_and_within_the_frame() -> None:
    timeline, rng = Timeline(64, (2, 58), 30), np.random.default_rng(2)
    drawn = [draw_distortion(rng, timeline, (1, 2, 4), 5) for _ in range(400)]
    assert {d.threshold_factor for d in drawn} == {1, 2, 4}
    assert {d.shift for d in drawn} == set(range(-2, 6))
    assert Distortion(1, -2).window(timeline) == slice(0, 56)
    still = {draw_distortion(rng, timeline, (1,), 0) for _ in range(20)}
    assert still == {Distortion()}


def test_a_share_of_the_samples_has_no_spikes_and_the_others_draws_stay() -> None:
    timeline = Timeline(64, (2, 58), 30)

    def drawn(share: float) -> list[Distortion]:
        seeds = (np.random.default_rng(seed) for seed in range(600))
        return [draw_distortion(rng, timeline, (1, 2), 5, share) for rng in seeds]

    some, none = drawn(0.25), drawn(0.0)
    assert 0.2 < np.mean([d.dropped for d in some]) < 0.3
    assert not any(d.dropped for d in none) and all(d.dropped for d in drawn(1.0))
    assert [(d.threshold_factor, d.shift) for d in some] == [
        (d.threshold_factor, d.shift) for d in none
    ]
