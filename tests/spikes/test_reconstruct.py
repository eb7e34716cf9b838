"""TFP and TFI equal naive references, and the published figures on genuine files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vrtspike.errors import ConfigError
from vrtspike.spikes.reconstruct import tfi, tfp
from vrtspike.spikes.stream import SpikeStream


def naive_tfi(train: list[bool], step: int, threshold: float) -> float:
    """Look for the spikes around an instant one step at a time."""
    if not any(train):
        return 0.0
    before = max((s for s in range(step) if train[s]), default=-1)
    after = min((s for s in range(step, len(train)) if train[s]), default=len(train) - 1)
    return threshold / max(after - before, 1)


def test_tfi_equals_a_naive_search_at_every_step() -> None:
    spikes = np.random.default_rng(1).random((12, 6, 6)) < 0.2
    for step in range(13):
        image = tfi(spikes, step=step, threshold=2.0)
        for y in range(6):
            for x in range(6):
                expected = naive_tfi(spikes[:, y, x].tolist(), step, 2.0)
                assert image[y, x] == pytest.approx(expected), (step, y, x)


def test_tfi_of_steady_light_is_its_intensity() -> None:
    for period in (2, 3, 7):
        spikes = np.zeros((40, 1, 1), bool)
        spikes[period - 1 :: period] = True
        assert tfi(spikes, step=20, threshold=2.0)[0, 0] == pytest.approx(2.0 / period)


@pytest.mark.parametrize(
    ("center", "window", "steps"),
    [(None, None, range(20)), (10, 4, range(8, 12)), (10, 5, range(8, 13)), (None, 6, range(7, 13)),
     (1, 8, range(0, 5)), (19, 6, range(16, 20))],
)  # fmt: skip
def test_tfp_averages_the_window(center: int | None, window: int | None, steps: range) -> None:
    spikes = np.random.default_rng(2).random((20, 3, 4)) < 0.5
    expected = 2.0 * np.mean([spikes[s] for s in steps], axis=0)
    np.testing.assert_allclose(
        tfp(spikes, threshold=2.0, center=center, window=window), expected, rtol=1e-6
    )


def test_windows_and_steps_outside_the_stream_are_refused() -> None:
    spikes = np.zeros((20, 3, 4), bool)
    for bad in (
        lambda: tfp(spikes, threshold=2.0, center=30, window=8),
        lambda: tfp(spikes, threshold=2.0, center=10, window=0),
        lambda: tfp(spikes, threshold=2.0, center=10),
        lambda: tfi(spikes, step=21, threshold=2.0),
    ):
        with pytest.raises(ConfigError):
            bad()


def psnr(image: NDArray[np.float32], gray: NDArray[np.float64]) -> float:
    """Return the PSNR of an intensity against 8-bit gray."""
    error = np.mean((image.clip(0, 1) * 255.0 - gray) ** 2)
    return float(10 * np.log10(255.0**2 / error))


def test_anchors_on_a_genuine_recording(shared: Path) -> None:
    """The centre of the exposure is step 40 of 88: half a source frame earlier than the middle."""
    path = shared / "data" / "spk_gopro_000226.dat"
    spikes = SpikeStream.open(path, height=360, width=640, steps=88)[:]
    with Image.open(path.with_suffix(".png")) as image:
        gray = np.asarray(image.convert("RGB")) @ (0.299, 0.587, 0.114)
    gray = gray.reshape(360, 2, 640, 2).mean(axis=(1, 3))

    def at(center: int) -> float:
        return psnr(tfp(spikes, threshold=2.0, center=center, window=32), gray)

    assert at(40) == pytest.approx(28.78, abs=0.02)
    assert at(44) == pytest.approx(28.01, abs=0.02)
    assert max(range(34, 48, 2), key=at) == 40
    assert psnr(tfi(spikes, step=40, threshold=2.0), gray) == pytest.approx(24.4, abs=0.1)


def test_anchors_on_the_reconstruction_benchmark(shared: Path) -> None:
    """The README of these files says 26 to 29 dB, rounded."""
    values = []
    for name in ("reds_200_part1", "reds_203_part1"):
        path = shared / "data" / f"{name}.dat"
        spikes = SpikeStream.open(path, height=250, width=400, steps=301)[:]
        with Image.open(path.with_suffix(".png")) as image:
            gray = np.asarray(image.convert("L"), np.float64)
        values.append(psnr(tfp(spikes, threshold=1 / 0.6, center=150, window=21), gray))
    assert values == pytest.approx([29.1, 25.9], abs=0.1)
