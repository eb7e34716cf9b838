"""Arrays of spikes as the field's loaders return and save them."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from vrtspike.errors import DataFormatError
from vrtspike.spikes.stream import SpikeStream

SPIKES = np.random.default_rng(5).random((6, 4, 5)) < 0.4


@pytest.mark.parametrize("axes", ["".join(axes) for axes in permutations("shw")])
@pytest.mark.parametrize("suffix", ["npy", "npz", "h5", "mat", "7.3.mat"])
def test_every_order_of_axes_is_read(axes: Any, suffix: str, tmp_path: Path) -> None:
    stored = SPIKES.transpose(["shw".index(axis) for axis in axes]).astype(np.uint8)
    file = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(file, stored)
    elif suffix == "npz":
        np.savez(file, spikes=stored)
    elif suffix == "mat":
        savemat(file, {"spikes": stored})
    else:
        turned = stored.transpose() if suffix == "7.3.mat" else stored
        with h5py.File(file, "w", userblock_size=512 if suffix == "7.3.mat" else 0) as hdf5:
            hdf5["spikes"] = turned
    stream = SpikeStream.open(file, axes=axes)
    np.testing.assert_array_equal(stream[:], SPIKES)
    np.testing.assert_array_equal(stream.crop(1, 2, 2, 3)[2:5], SPIKES[2:5, 1:3, 2:5])


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("one", [1, 255])
def test_exact_values_of_any_type_are_read(kind: Any, one: int, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", (SPIKES * one).astype(kind))
    np.testing.assert_array_equal(SpikeStream.open(tmp_path / "a.npy", axes="shw")[:], SPIKES)
    np.testing.assert_array_equal(SpikeStream.from_array((SPIKES * one).astype(kind))[:], SPIKES)


@pytest.mark.parametrize("value", [0.5, np.nan, -1.0, 2.0, 254.0])
def test_other_values_are_refused(value: float, tmp_path: Path) -> None:
    spikes = SPIKES.astype(np.float32)
    spikes[2, 1, 1] = value
    np.save(tmp_path / "a.npy", spikes)
    with pytest.raises(DataFormatError, match="spikes must be 0 or 1"):
        SpikeStream.open(tmp_path / "a.npy", axes="shw")[:]


def test_an_array_under_another_suffix_is_not_taken_for_bits(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"spikes": SPIKES.astype(np.uint8)})
    np.save(tmp_path / "a.npy", SPIKES)
    for name, suffix in (("a.mat", "mat"), ("a.npy", "npy")):
        for other in ("dat", "txt"):
            (tmp_path / f"b.{other}").write_bytes((tmp_path / name).read_bytes())
            with pytest.raises(DataFormatError, match=rf"Fix: name it \.{suffix}"):
                SpikeStream.open(tmp_path / f"b.{other}", height=4, width=5)


def test_the_shared_examples(shared: Path) -> None:
    folder = shared / "data/faults/14_spike_arrays"
    if not folder.is_dir():
        pytest.skip("no shared/data/faults")
    matlab = SpikeStream.open(folder / "v5.mat", axes="hws")
    assert matlab.shape == (96, 40, 64)
    assert SpikeStream.open(folder / "u255.npy", axes="shw")[:].any()
    turned = SpikeStream.open(folder / "swh.npy", axes="swh")
    np.testing.assert_array_equal(turned[:], np.load(folder / "swh.npy").swapaxes(1, 2))
