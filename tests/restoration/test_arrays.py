"""What programs give a `Restorer` in memory is taken for what it is, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.restoration.arrays import checked_frames, checked_spikes, checked_threshold

FRAMES = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), np.uint8)
SPIKES = np.random.default_rng(1).random((2, 5, 4, 6)) < 0.5


@pytest.mark.parametrize("given", [FRAMES, FRAMES[..., ::-1], torch.from_numpy(FRAMES)])
def test_bytes_are_taken_with_any_strides(given: Any) -> None:
    np.testing.assert_array_equal(checked_frames(given).numpy(), np.asarray(given))
    np.testing.assert_array_equal(checked_frames(list(given)).numpy(), np.asarray(given))


def test_floats_in_the_unit_range_are_taken() -> None:
    found = checked_frames(FRAMES.astype(np.float64) / 255)
    np.testing.assert_allclose(found.numpy(), FRAMES / 255, atol=1e-7)


@pytest.mark.parametrize(
    "given",
    [
        FRAMES.astype(np.float32),
        FRAMES.astype(np.uint16),
        FRAMES.astype(np.int64),
        FRAMES > 100,
        FRAMES / 255 * 2 - 1,
        np.full(FRAMES.shape, np.nan),
        FRAMES[..., 0],
        FRAMES[0],
        FRAMES[..., :1],
        FRAMES[:0],
        FRAMES.astype(str),
    ],
)
def test_other_frames_are_refused(given: Any) -> None:
    with pytest.raises(DataFormatError, match="frames must be"):
        checked_frames(given)


def test_spikes_are_bits_on_a_grid_that_fits() -> None:
    for given in (SPIKES, SPIKES.astype(np.float32), torch.from_numpy(SPIKES)):
        np.testing.assert_array_equal(checked_spikes(given, 2, (8, 12)), SPIKES)
    for given in (SPIKES.swapaxes(2, 3), SPIKES[..., 1:], SPIKES[0], SPIKES[:1], SPIKES * 2):
        with pytest.raises(DataFormatError, match="spike"):
            checked_spikes(given, 2, (8, 12))


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_thresholds_are_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        checked_threshold(threshold)
