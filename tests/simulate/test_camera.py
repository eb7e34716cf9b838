"""The spike camera obeys its physics, whatever the pieces in which it is exposed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vrtspike.config.loader import load_config
from vrtspike.errors import ConfigError
from vrtspike.simulate.camera import SpikeCamera, simulate_camera
from vrtspike.spikes.reconstruct import tfp

GRAYS = np.array([0.1, 0.17, 0.3, 0.37, 0.55, 0.8, 1.0], np.float32)
EVERYTHING = {"noise": 0.1, "dark_rate": 0.01, "refractory_steps": 2, "saturation": 0.7}
DEFECTS = {"hot_pixels": 0.1, "dead_pixels": 0.05}


def camera(shape: tuple[int, ...], seed: int = 0, **settings: Any) -> SpikeCamera:
    """Return a camera of threshold 2 unless set."""
    values = {"threshold": 2.0} | settings
    return SpikeCamera(*shape, rng=np.random.default_rng(seed), **values)


def steady(light: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
    """Return the same light at every step."""
    return np.broadcast_to(light, (steps, *light.shape))


def intervals(spikes: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the inter-spike intervals of all pixels."""
    trains = spikes.reshape(len(spikes), -1).T
    return np.concatenate([np.diff(np.flatnonzero(train)) for train in trains])


def naive(
    light: NDArray[np.float32],
    *,
    threshold: float = 2.0,
    noise: float = 0.0,
    dark_rate: float = 0.0,
    refractory_steps: int = 0,
    saturation: float = math.inf,
) -> NDArray[np.bool_]:
    """Simulate pixel by pixel; the seed's draws are the charges, then each step's noise."""
    rng, f = np.random.default_rng(0), np.float32
    charge = rng.random(light.shape[1:], f) * f(threshold)
    resting, spikes = np.zeros(light.shape[1:], int), np.zeros(light.shape, bool)
    for step, now in enumerate(light):
        walk = rng.standard_normal(now.shape, f) if noise else None
        for at in np.ndindex(now.shape):
            if resting[at] > 0:
                resting[at] -= 1
                continue
            charge[at] += min(now[at], f(saturation))
            charge[at] += f(dark_rate)
            if walk is not None:
                charge[at] = max(charge[at] + f(noise) * walk[at], 0)
            if charge[at] >= f(threshold):
                spikes[step][at] = True
                charge[at] = min(charge[at] - f(threshold), f(threshold))
                resting[at] = refractory_steps
    return spikes


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"threshold": 0.4},
        {"noise": 0.2, "dark_rate": 0.01},
        {"refractory_steps": 3},
        EVERYTHING,
        EVERYTHING | {"threshold": 0.4},
    ],
    ids=str,
)
def test_it_is_the_equation_pixel_by_pixel(settings: dict[str, Any]) -> None:
    light = np.random.default_rng(2).random((60, 5, 6), np.float32)
    np.testing.assert_array_equal(
        camera((5, 6), **settings).expose(light), naive(light, **settings)
    )


@pytest.mark.parametrize("threshold", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("refractory_steps", [0, 1, 7])
@pytest.mark.parametrize("saturation", [None, 0.5])
def test_the_rate_is_within_a_hundredth_of_the_closed_form(
    threshold: float, refractory_steps: int, saturation: float | None
) -> None:
    """Without any loss that is intensity / threshold."""
    pixels = camera(
        (40, len(GRAYS)),
        threshold=threshold,
        refractory_steps=refractory_steps,
        saturation=saturation,
    )
    spikes = pixels.expose(steady(np.tile(GRAYS, (40, 1)), 6000))
    seen = np.minimum(GRAYS, saturation or math.inf)
    rate = 1 / (np.maximum(threshold / seen, 1) + refractory_steps)
    np.testing.assert_allclose(spikes.mean(axis=(0, 1)), rate, rtol=0.01)
    if not refractory_steps and saturation is None and threshold >= 1:
        np.testing.assert_allclose(rate, GRAYS / threshold)


@pytest.mark.parametrize("threshold", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("gray", [0.13, 0.37, 0.5, 0.77])
@pytest.mark.parametrize("refractory_steps", [0, 3])
def test_intervals_of_steady_light_are_the_whole_numbers_around_threshold_over_intensity(
    threshold: float, gray: float, refractory_steps: int
) -> None:
    pixels = camera((4, 4), threshold=threshold, refractory_steps=refractory_steps)
    spikes = pixels.expose(steady(np.full((4, 4), gray, np.float32), 3000))
    between = intervals(spikes) - refractory_steps
    mean = threshold / gray
    assert set(between.tolist()) <= {math.floor(mean), math.ceil(mean)}
    assert between.mean() == pytest.approx(mean, rel=0.01)


def test_the_average_of_a_still_scene_converges_like_one_over_the_steps() -> None:
    scene = np.random.default_rng(1).random((16, 16), np.float32)
    spikes = camera(scene.shape).expose(steady(scene, 3000))
    for steps in (10, 30, 100, 300, 1000, 3000):
        error = np.abs(tfp(spikes[:steps], threshold=2.0) - scene).max()
        assert error <= 2.0 / steps * 1.01, "never off by more than one spike"


@pytest.mark.parametrize("settings", [{}, EVERYTHING, EVERYTHING | DEFECTS], ids=str)
def test_exposing_in_pieces_equals_exposing_at_once(settings: dict[str, Any]) -> None:
    light = np.random.default_rng(2).random((50, 16, 17), np.float32)
    whole = camera((16, 17), **settings).expose(light)
    pieces = camera((16, 17), **settings)
    parts = [pieces.expose(part) for part in np.split(light, [1, 8, 30])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("settings", [{}, EVERYTHING | DEFECTS], ids=str)
def test_light_is_not_changed_and_the_seed_decides(settings: dict[str, Any]) -> None:
    light = np.random.default_rng(2).random((20, 16, 17), np.float32)
    before = light.copy()
    first = camera((16, 17), seed=1, **settings).expose(light)
    np.testing.assert_array_equal(light, before)
    np.testing.assert_array_equal(camera((16, 17), seed=1, **settings).expose(light), first)
    assert not np.array_equal(camera((16, 17), seed=2, **settings).expose(light), first)


def test_channels_are_exposed_separately_by_a_camera_of_their_shape() -> None:
    light = np.random.default_rng(2).random((30, 5, 6, 3), np.float32)
    settings = {"noise": 0.1, "refractory_steps": 1, "hot_pixels": 0.1}
    spikes = camera((5, 6, 3), **settings).expose(light)
    flat = camera((90,), **settings).expose(light.reshape(30, 90))
    np.testing.assert_array_equal(spikes.reshape(30, 90), flat)


def test_the_first_charge_is_uniform() -> None:
    """So the first spike of steady light comes at every phase equally often."""
    spikes = camera((100, 100)).expose(np.full((8, 100, 100), 0.25, np.float32))
    np.testing.assert_allclose(spikes.mean(axis=(1, 2)), 1 / 8, atol=0.015)


def test_a_dark_current_fires_regularly_in_darkness_and_nothing_else_does() -> None:
    dark = np.zeros((2000, 10, 10), np.float32)
    assert not camera((10, 10)).expose(dark).any()
    spikes = camera((10, 10), dark_rate=0.02).expose(dark)
    assert spikes.mean() == pytest.approx(0.01, abs=0.0005)
    assert intervals(spikes).std() < 1


@pytest.mark.parametrize("noise", [0.1, 0.2])
def test_dark_noise_is_random_spikes_of_a_dark_sensor(noise: float) -> None:
    """A walk reflected at 0 leaves [0, threshold) after (threshold / noise)^2 steps on average.

    Steps overshoot both ends by 0.58 noise (Siegmund); the time has a coefficient of variation of
    sqrt(2 / 3).
    """
    spikes = camera((20, 20), noise=noise).expose(np.zeros((8000, 20, 20), np.float32))
    between = intervals(spikes)
    assert between.mean() == pytest.approx((2 / noise + 2 * 0.583) ** 2, rel=0.1)
    assert between.std() / between.mean() == pytest.approx(math.sqrt(2 / 3), rel=0.1)


@pytest.mark.parametrize("noise", [0.04, 0.08, 0.12])
def test_noise_spreads_the_intervals_as_a_walk_with_drift_and_keeps_the_rate(noise: float) -> None:
    """First passages of a walk: a coefficient of variation of noise / sqrt(threshold intensity)."""
    light = steady(np.full((12, 12), 0.2, np.float32), 5000)
    spikes = camera((12, 12), threshold=5.0, noise=noise).expose(light)
    between = intervals(spikes)
    assert between.std() / between.mean() == pytest.approx(noise, rel=0.1)
    assert spikes.mean() == pytest.approx(0.04, rel=0.01)


def test_a_saturated_pixel_fires_once_a_step_and_recovers_at_once() -> None:
    light = np.concatenate([np.full((50, 4, 4), 1.0), np.zeros((10, 4, 4))]).astype(np.float32)
    spikes = camera((4, 4), threshold=0.5).expose(light)
    assert spikes[1:50].all()
    assert not spikes[52:].any(), "charge beyond the threshold is lost, not fired later"


def test_light_while_a_pixel_rests_is_lost() -> None:
    """After a spike and no light but in the resting steps, there is no other spike."""
    pixels = camera((6, 6), refractory_steps=4)
    light = np.concatenate([np.full((1, 6, 6), 2.0), np.full((4, 6, 6), 1.0)]).astype(np.float32)
    first = pixels.expose(light)
    assert first[0].all()
    assert not first[1:].any()
    charge = pixels.charge.copy()
    assert not pixels.expose(np.zeros((3, 6, 6), np.float32)).any()
    np.testing.assert_array_equal(pixels.charge, charge)


def test_defects_are_shares_of_the_pixels_and_leave_the_others_alone() -> None:
    light = np.random.default_rng(2).random((200, 60, 60), np.float32)
    light[:, :30] = 0.0
    pixels = camera((60, 60), noise=0.1, hot_pixels=0.05, dead_pixels=0.02)
    spikes = np.concatenate([pixels.expose(part) for part in np.split(light, [70])])
    hot, dead = spikes.all(axis=0), ~spikes.any(axis=0)
    assert hot.mean() == pytest.approx(0.05, abs=0.015)
    assert dead[30:].mean() == pytest.approx(0.02, abs=0.015)
    sound = camera((60, 60), noise=0.1).expose(light)
    fine = ~(hot | dead)
    np.testing.assert_array_equal(spikes[:, fine], sound[:, fine])
    assert not np.array_equal(camera((60, 60), seed=1, hot_pixels=0.05).hot, pixels.hot)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("threshold", value) for value in (0.0, -1.0, math.nan, math.inf)],
        *[("noise", value) for value in (-0.1, math.nan)],
        ("dark_rate", -1.0),
        ("refractory_steps", -1),
        *[("saturation", value) for value in (0.0, math.nan)],
        ("hot_pixels", 1.5),
        ("dead_pixels", -0.1),
    ],
)
def test_absurd_values_are_refused_from_python_and_from_settings(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        camera((4, 4), **{name: value})
    text = {math.inf: ".inf"}.get(value, ".nan" if math.isnan(value) else str(value))
    with pytest.raises(ConfigError, match=name):
        load_config(None, [f"camera.{name}={text}"])


def test_settings_that_contradict_one_another_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"dead_pixels.*got 1\.2, expected.*at most 1"):
        camera((4, 4), hot_pixels=0.7, dead_pixels=0.5)
    with pytest.raises(ConfigError, match=r"hot_pixels 0\.7 and dead_pixels 0\.5"):
        load_config(None, ["camera.hot_pixels=0.7", "camera.dead_pixels=0.5"])
    with pytest.raises(ConfigError, match="rate_hz"):
        load_config(None, ["camera.rate_hz=0"])
    for override in ("motion=[20,5]", "motion=[0,0]", "motion=[.nan,5]", "objects=[3,1]"):
        with pytest.raises(ConfigError, match=override.partition("=")[0]):
            load_config(None, [f"scenes.{override}"])
    for override in ("splits={}", "splits={a: .nan}", "interpolation=nearest"):
        with pytest.raises(ConfigError, match=override.partition("=")[0]):
            load_config(None, [f"video.{override}"])
    with pytest.raises(ConfigError, match="shape"):
        camera(())


def test_a_camera_in_one_call_fires_as_often_as_light_says() -> None:
    light = np.full((400, 3, 4), 0.5)
    spikes = simulate_camera(light, threshold=2.0)
    assert spikes.shape == light.shape and spikes.dtype == np.bool_
    np.testing.assert_allclose(spikes.mean(axis=0), 0.25, atol=1 / 400)
    assert (simulate_camera(light[::-1], seed=1) != spikes).any()


@pytest.mark.parametrize(
    ("light", "said"),
    [
        (np.full((4, 2, 2), 200.0), "divide 8-bit"),
        (np.zeros((2, 2)), "steps, h, w"),
        (np.full((2, 2, 2), np.nan), "out of range"),
    ],
)
def test_light_that_is_none_is_refused(light: np.ndarray, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        simulate_camera(light)
