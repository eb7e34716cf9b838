"""Voxels equal a naive count, for every split into bins and every way to store a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.spikes.naive_voxels import voxelize
from vrtspike.errors import ConfigError
from vrtspike.spikes import voxels
from vrtspike.spikes.packed_file import BitOrder
from vrtspike.spikes.packed_writer import write_dat
from vrtspike.spikes.stream import SpikeStream
from vrtspike.spikes.voxels import bin_steps, voxelize_stream

RNG = np.random.default_rng(0)


def counted(spikes: NDArray[np.bool_], bins: int, **window: int) -> NDArray[Any]:
    return voxelize_stream(SpikeStream.from_array(spikes), bins, **window)


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
    ours = counted(spikes, bins, start=start, stop=stop)
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, voxelize(spikes, bins, start=start, stop=stop))
    per_bin = voxelize(np.ones((steps, 1, 1), bool), bins, start=start, stop=stop)
    np.testing.assert_array_equal(bin_steps(stop - start, bins), per_bin.ravel())


def test_every_split_into_bins_agrees_with_the_definition() -> None:
    spikes = np.ones((97, 1, 1), bool)
    for bins in range(1, 98):
        np.testing.assert_array_equal(
            counted(spikes, bins), voxelize(spikes, bins), err_msg=f"{bins} bins"
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
        expected = voxelize(spikes, bins)
        found = voxelize_stream(stream, bins)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.uint8 and found.flags.c_contiguous
    window = voxelize_stream(stream, 7, start=3, stop=40)
    np.testing.assert_array_equal(window, voxelize(spikes[3:40], 7))


@pytest.mark.parametrize("flip", [True, False])
def test_a_crop_and_dropped_columns_are_counted_alone(tmp_path: Path, flip: bool) -> None:
    stored = RNG.random((20, 9, 24)) < 0.5
    write_dat(tmp_path / "a.dat", stored, flip=flip)
    stream = SpikeStream.open(
        tmp_path / "a.dat", height=9, width=20, flip=flip, dropped_columns=[(5, 7), (22, 24)]
    )
    spikes = np.delete(stored, [5, 6, 22, 23], axis=2)
    np.testing.assert_array_equal(voxelize_stream(stream, 6), voxelize(spikes, 6))
    crop = voxelize_stream(stream.crop(1, 3, 5, 11), 6)
    np.testing.assert_array_equal(crop, voxelize(spikes[:, 1:6, 3:14], 6))


def test_a_bin_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    spikes = RNG.random((700, 4, 5)) < 0.9
    monkeypatch.setattr("vrtspike.spikes.stream.PIECE_BYTES", 3 * 20)
    stream = SpikeStream.from_array(spikes)
    assert stream.piece_steps == 3
    for bins in (1, 3, 200, 700):
        found = voxelize_stream(stream, bins)
        np.testing.assert_array_equal(found, voxelize(spikes, bins))
        assert found.dtype == (np.uint16 if bins < 3 else np.uint8)


def test_steps_outside_the_window_are_dropped() -> None:
    spikes = np.zeros((10, 1, 1), bool)
    spikes[[0, 1, 8, 9]] = True
    assert counted(spikes, 3, start=2, stop=8).sum() == 0


def test_long_bins_do_not_overflow() -> None:
    spikes = np.ones((600, 2, 2), bool)
    assert counted(spikes, 2).dtype == np.uint16
    assert (counted(spikes, 2) == 300).all()
    assert (counted(spikes[:510], 2) == 255).all()
    assert (counted(spikes[:512], 2) == 256).all()


@pytest.mark.parametrize(
    ("bins", "start", "stop"),
    [(1, 3, 3), (1, -1, 4), (1, 0, 11), (2, 4, 11), (0, 0, 10), (6, 0, 5)],
)
def test_windows_without_a_step_for_each_bin_are_refused(bins: int, start: int, stop: int) -> None:
    with pytest.raises(ConfigError, match=r"leaves the stream|one step each"):
        counted(np.zeros((10, 2, 2), bool), bins, start=start, stop=stop)


@pytest.mark.parametrize(("steps", "bins"), [(64, 8), (47, 5), (600, 2)])
def test_spikes_in_memory_are_counted_as_defined(steps: int, bins: int) -> None:
    spikes = np.random.default_rng(3).random((steps + 7, 4, 5)) < 0.3
    found = voxels.voxelize(spikes, bins, start=3, stop=3 + steps)
    np.testing.assert_array_equal(found, voxelize(spikes, bins, start=3, stop=3 + steps))
    assert found.dtype == (np.uint8 if steps / bins < 256 else np.uint16)
