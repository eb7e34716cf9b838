"""Voxels equal a naive count, and rates do not depend on bins or thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vrtspike.errors import ConfigError
from vrtspike.spikes.packed_file import BitOrder
from vrtspike.spikes.packed_writer import write_dat
from vrtspike.spikes.stream import SpikeStream
from vrtspike.spikes.voxels import bin_steps, normalize_voxels, voxelize, voxelize_stream

RNG = np.random.default_rng(0)


def naive_voxels(
    spikes: NDArray[np.bool_], bins: int, start: int, stop: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count step by step, straight from the definition."""
    counts = np.zeros((bins, *spikes.shape[1:]), np.int64)
    steps = np.zeros(bins, np.int64)
    for s in range(start, stop):
        k = (s - start) * bins // (stop - start)
        counts[k] += spikes[s]
        steps[k] += 1
    return counts, steps


@pytest.mark.parametrize(
    ("steps", "bins", "start", "stop"),
    [
        (88, 32, 0, 88),
        (64, 8, 0, 56),
        (64, 8, 8, 64),
        (13, 13, 0, 13),
        (29, 7, 5, 28),
        (9, 1, 3, 4),
    ],
)
def test_counts_equal_the_definition(steps: int, bins: int, start: int, stop: int) -> None:
    spikes = RNG.random((steps, 5, 6)) < 0.5
    counts, per_bin = naive_voxels(spikes, bins, start, stop)
    ours = voxelize(spikes, bins, start=start, stop=stop)
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, counts)
    np.testing.assert_array_equal(bin_steps(stop - start, bins), per_bin)
    np.testing.assert_array_equal(
        voxelize(spikes.astype(np.uint8), bins, start=start, stop=stop), counts
    )


def test_every_split_into_bins_agrees_with_the_definition() -> None:
    spikes = np.ones((97, 1, 1), bool)
    for bins in range(1, 98):
        np.testing.assert_array_equal(
            voxelize(spikes, bins), naive_voxels(spikes, bins, 0, 97)[0], err_msg=f"{bins} bins"
        )


@pytest.mark.parametrize("bit_order", ["little", "big"])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(("height", "width"), [(6, 8), (5, 7), (9, 24), (1, 1)])
def test_a_packed_stream_gives_the_counts_of_its_spikes(
    tmp_path: Path, height: int, width: int, flip: bool, bit_order: BitOrder
) -> None:
    spikes = RNG.random((47, height, width)) < 0.5
    write_dat(tmp_path / "a.dat", spikes, flip=flip, bit_order=bit_order)
    stream = SpikeStream.open(
        tmp_path / "a.dat",
        height=height,
        width=width,
        flip=flip,
        bit_order=bit_order,
        pad_to_byte=True,
    )
    for bins in (1, 5, 32, 47):
        expected = naive_voxels(spikes, bins, 0, 47)[0]
        found = voxelize_stream(stream, bins)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.uint8 and found.flags.c_contiguous
    window = voxelize_stream(stream, 7, start=3, stop=40)
    np.testing.assert_array_equal(window, naive_voxels(spikes, 7, 3, 40)[0])


@pytest.mark.parametrize("flip", [True, False])
def test_a_crop_and_dropped_columns_are_counted_alone(tmp_path: Path, flip: bool) -> None:
    stored = RNG.random((20, 9, 24)) < 0.5
    write_dat(tmp_path / "a.dat", stored, flip=flip)
    stream = SpikeStream.open(
        tmp_path / "a.dat", height=9, width=20, flip=flip, dropped_columns=[(5, 7), (22, 24)]
    )
    spikes = np.delete(stored, [5, 6, 22, 23], axis=2)
    np.testing.assert_array_equal(voxelize_stream(stream, 6), naive_voxels(spikes, 6, 0, 20)[0])
    crop = voxelize_stream(stream.crop(1, 3, 5, 11), 6)
    np.testing.assert_array_equal(crop, naive_voxels(spikes[:, 1:6, 3:14], 6, 0, 20)[0])


def test_a_bin_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    spikes = RNG.random((700, 4, 5)) < 0.9
    monkeypatch.setattr("vrtspike.spikes.stream.PIECE_BYTES", 3 * 20)
    stream = SpikeStream.from_array(spikes)
    assert stream.piece_steps == 3
    for bins in (1, 3, 200, 700):
        found = voxelize_stream(stream, bins)
        np.testing.assert_array_equal(found, naive_voxels(spikes, bins, 0, 700)[0])
        assert found.dtype == voxelize(spikes, bins).dtype


def test_a_window_that_leaves_the_stream_is_refused() -> None:
    stream = SpikeStream.from_array(np.zeros((10, 2, 2), bool))
    with pytest.raises(ConfigError, match="leaves the stream"):
        voxelize_stream(stream, 2, start=4, stop=11)


def test_steps_outside_the_window_are_dropped() -> None:
    spikes = np.zeros((10, 1, 1), bool)
    spikes[[0, 1, 8, 9]] = True
    assert voxelize(spikes, 3, start=2, stop=8).sum() == 0


def test_long_bins_do_not_overflow() -> None:
    spikes = np.ones((600, 2, 2), bool)
    assert voxelize(spikes, 2).dtype == np.uint16
    assert (voxelize(spikes, 2) == 300).all()
    assert (voxelize(spikes[:510], 2) == 255).all()
    assert (voxelize(spikes[:512], 2) == 256).all()


@pytest.mark.parametrize(
    ("bins", "start", "stop"), [(1, 3, 3), (1, -1, 4), (1, 0, 11), (0, 0, 10), (6, 0, 5)]
)
def test_windows_without_a_step_for_each_bin_are_refused(bins: int, start: int, stop: int) -> None:
    with pytest.raises(ConfigError):
        voxelize(np.zeros((10, 2, 2), bool), bins, start=start, stop=stop)


def test_a_grid_of_counts_is_not_taken_for_spikes() -> None:
    with pytest.raises(ConfigError, match="bool or uint8"):
        voxelize(np.zeros((10, 2, 2), np.float32), 2)


@pytest.mark.parametrize("threshold", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("bins", [3, 7, 32])
def test_rate_is_the_intensity_whatever_bins_and_threshold(threshold: float, bins: int) -> None:
    """A pixel of intensity I fires every threshold / I steps; the mean rate x threshold is I."""
    intensity, steps = 0.8, 1024
    fires = np.diff(np.floor(np.arange(steps + 1) * intensity / threshold)) > 0
    counts = voxelize(fires[:, None, None], bins)
    voxels = normalize_voxels(counts, bin_steps(steps, bins), threshold, "rate")
    np.testing.assert_allclose(voxels, intensity, atol=1.01 * threshold * bins / steps)


@pytest.mark.parametrize("mode", ["rate", "log1p"])
def test_numpy_and_torch_normalise_alike(mode: str) -> None:
    counts = RNG.integers(0, 4, (2, 3, 5, 4, 4), np.uint8)
    steps = bin_steps(13, 5)
    ours = normalize_voxels(counts, steps, 2.0, mode)  # type: ignore[arg-type]
    theirs = normalize_voxels(torch.from_numpy(counts), steps, 2.0, mode)  # type: ignore[arg-type]
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6)
    if mode == "log1p":
        np.testing.assert_allclose(ours, np.log(1.0 + counts), rtol=1e-6)


def test_normalising_refuses_other_bins_and_modes() -> None:
    counts = np.zeros((5, 4, 4), np.uint8)
    with pytest.raises(ConfigError, match="disagree"):
        normalize_voxels(counts, bin_steps(13, 4), 2.0, "rate")
