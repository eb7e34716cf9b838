"""What the flow network sees of a pair: of the light alone, as much worse as is said."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vrtspike.simulate.camera import SpikeCamera
from vrtspike.simulate.degradation import KINDS, Kind, degraded, draw_kind, spike_image
from vrtspike.simulate.photographs import load_photograph
from vrtspike.spikes.gray import luma

LIGHT = load_photograph("astronaut.png")[100:228, 100:228].astype(np.float32) / 255
PAIR = np.stack([LIGHT, LIGHT[::-1]])
BLUR = np.broadcast_to(PAIR.mean(axis=(1, 2), keepdims=True), PAIR.shape)


def mean(exposure: float) -> NDArray[np.float32]:
    """Return light that is all gone after an exposure of 1."""
    return ((1 - exposure) * PAIR + exposure * BLUR).astype(np.float32)


def seen(kind: Kind, seed: int = 0) -> NDArray[np.float64]:
    frames = degraded(kind, mean, 0.8, np.random.default_rng(seed))
    assert frames.dtype == np.uint8 and frames.shape == (2, 3, 128, 128)
    return np.moveaxis(frames, 1, -1) / 255


def test_sharp_frames_are_the_light_and_blurred_ones_its_mean() -> None:
    np.testing.assert_allclose(seen("sharp"), PAIR, atol=0.51 / 255)
    shares = []
    for seed in range(20):
        off = seen("blurred", seed) - PAIR
        shares.append(float((off * (BLUR - PAIR)).sum() / np.square(BLUR - PAIR).sum()))
        np.testing.assert_allclose(off, shares[-1] * (BLUR - PAIR), atol=2 / 255)
    assert 0.19 < min(shares) < 0.4 and 0.65 < max(shares) < 0.81, "a quarter of 0.8 to 0.8"


def test_a_guess_is_nearly_sharp() -> None:
    ratios = [-10 * np.log10(np.square(seen("guess", seed) - PAIR).mean()) for seed in range(20)]
    assert min(ratios) > 20 and max(ratios) < 40
    assert np.median(ratios) > -10 * np.log10(np.square(seen("blurred") - PAIR).mean())


@pytest.mark.parametrize("threshold", [1.0, 2.0, 3.5])
def test_spike_images_are_those_of_the_spike_camera(threshold: float) -> None:
    light = luma(PAIR[0])
    rng = np.random.default_rng(0)
    camera = SpikeCamera(*light.shape, threshold=threshold, rng=rng)
    spikes = camera.expose(np.broadcast_to(light, (17, *light.shape)))
    errors = [
        image - light
        for image in (
            spikes.mean(axis=0) * threshold,
            spike_image(light, 17, threshold, np.random.default_rng(1)),
        )
    ]
    assert errors[1].std() == pytest.approx(errors[0].std(), rel=0.05)
    assert errors[1].mean() == pytest.approx(errors[0].mean(), abs=0.003)


def test_spike_images_are_gray_and_of_the_light_around_the_instant() -> None:
    found = [seen("spikes", seed)[0] for seed in range(12)]
    assert all(np.ptp(image, axis=-1).max() == 0 for image in found)
    average = np.mean(found, axis=0)[..., 0]
    truth = luma(mean(17 / 64)[0])
    assert np.abs(average - truth)[8:-8, 8:-8].mean() < 0.03 < np.abs(average - luma(LIGHT)).mean()


def test_all_kinds_are_drawn() -> None:
    rng = np.random.default_rng(0)
    assert {draw_kind(rng) for _ in range(100)} == set(KINDS)
