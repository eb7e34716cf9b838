"""The spike camera obeys its physics, whatever the pieces in which it is exposed."""

from __future__ import annotations

import numpy as np
import pytest

from vrtspike.data.reconstruct import tfp
from vrtspike.simulate.camera import SpikeCamera


def camera(shape: tuple[int, int], seed: int = 0, **settings: float) -> SpikeCamera:
    """Return a camera of threshold 2 unless set."""
    values = {"threshold": 2.0} | settings
    return SpikeCamera(*shape, rng=np.random.default_rng(seed), **values)


def test_the_firing_rate_is_intensity_over_threshold() -> None:
    light = np.linspace(0, 1, 101, dtype=np.float32)[None].repeat(20, axis=0)
    for threshold in (1.0, 2.0, 5.0):
        spikes = camera(light.shape, threshold=threshold).expose(np.stack([light] * 2000))
        rate = spikes.mean(axis=0).mean(axis=0)
        np.testing.assert_allclose(rate, light[0] / threshold, atol=0.01 / threshold)


def test_intervals_of_steady_light_are_threshold_over_intensity() -> None:
    spikes = camera((8, 8)).expose(np.full((500, 8, 8), 0.37, np.float32))
    for train in spikes.reshape(500, -1).T:
        intervals = np.diff(np.flatnonzero(train))
        assert set(intervals.tolist()) <= {5, 6}, "2 / 0.37 = 5.4"
        assert intervals.mean() == pytest.approx(2 / 0.37, rel=0.01)


def test_the_average_of_a_still_scene_converges_to_the_scene() -> None:
    scene = np.random.default_rng(1).random((16, 16), np.float32)
    spikes = camera(scene.shape).expose(np.stack([scene] * 1000))
    errors = [np.abs(tfp(spikes[:n], threshold=2.0) - scene).max() for n in (10, 100, 1000)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] <= 2.0 / 1000 * 1.01, "never off by more than one spike"


def test_exposing_in_pieces_equals_exposing_at_once() -> None:
    light = np.random.default_rng(2).random((50, 6, 7), np.float32)
    for settings in ({}, {"noise": 0.1, "dark_rate": 0.01}):
        whole = camera((6, 7), **settings).expose(light)
        pieces = camera((6, 7), **settings)
        parts = [pieces.expose(part) for part in np.split(light, [1, 8, 30])]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_light_is_not_changed_and_the_seed_decides() -> None:
    light = np.random.default_rng(2).random((20, 6, 7), np.float32)
    before = light.copy()
    first = camera((6, 7), seed=1).expose(light)
    np.testing.assert_array_equal(light, before)
    np.testing.assert_array_equal(camera((6, 7), seed=1).expose(light), first)
    assert not np.array_equal(camera((6, 7), seed=2).expose(light), first)


def test_the_first_charge_is_uniform() -> None:
    """So the first spike of steady light comes at every phase equally often."""
    spikes = camera((100, 100)).expose(np.full((8, 100, 100), 0.25, np.float32))
    np.testing.assert_allclose(spikes.mean(axis=(1, 2)), 1 / 8, atol=0.015)


def test_darkness_fires_at_the_dark_rate_only() -> None:
    dark = np.zeros((2000, 10, 10), np.float32)
    assert not camera((10, 10)).expose(dark).any()
    rate = camera((10, 10), dark_rate=0.02).expose(dark).mean()
    assert rate == pytest.approx(0.01, abs=0.0005)


def test_noise_spreads_the_intervals_but_keeps_the_rate() -> None:
    light = np.full((2000, 10, 10), 0.5, np.float32)
    quiet, noisy = (camera((10, 10), noise=noise).expose(light) for noise in (0.0, 0.2))
    spread = [np.std(np.diff(np.flatnonzero(s[:, 0, 0]))) for s in (quiet, noisy)]
    assert spread[0] == 0
    assert 0.2 < spread[1] < 1.5
    assert noisy.mean() == pytest.approx(0.25, rel=0.01)


def test_a_saturated_pixel_fires_once_a_step_and_recovers_at_once() -> None:
    light = np.concatenate([np.full((50, 4, 4), 1.0), np.zeros((10, 4, 4))]).astype(np.float32)
    spikes = camera((4, 4), threshold=0.5).expose(light)
    assert spikes[1:50].all()
    assert not spikes[52:].any(), "charge beyond the threshold is lost, not fired later"
