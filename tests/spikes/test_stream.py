"""Every format gives the same stream, reads only what is asked for, and says what is wrong."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.spikes.array_file import Axes
from vrtspike.spikes.stream import SpikeStream

SPIKES = np.random.default_rng(3).random((7, 5, 9)) < 0.4
SAVERS: dict[str, Callable[[Path, NDArray[Any]], object]] = {
    "a.npy": np.save,
    "a.npz": lambda path, array: np.savez(path, spk=array),
    "compressed.npz": lambda path, array: np.savez_compressed(path, spk=array),
    "a.h5": lambda path, array: save_hdf5(path, spk=array),
    "chunks.hdf5": lambda path, array: save_hdf5(path, "gzip", **{"group/spk": array}),
}


def save_hdf5(path: Path, compression: str | None = None, **arrays: NDArray[Any]) -> None:
    """Write datasets by name."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression=compression)


def stored(spikes: NDArray[Any], axes: Axes) -> NDArray[Any]:
    """Return (s, h, w) in the axes of a file."""
    return spikes if axes == "shw" else spikes.transpose(1, 2, 0)


@pytest.mark.parametrize("name", SAVERS)
@pytest.mark.parametrize("axes", ["shw", "hws"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
@pytest.mark.parametrize("flip", [None, True, False])
def test_arrays_of_every_kind_are_the_same_stream(
    tmp_path: Path, name: str, axes: Axes, order: Any, dtype: Any, flip: bool | None
) -> None:
    rows = SPIKES[:, ::-1] if flip else SPIKES
    path = tmp_path / name
    SAVERS[name](path, stored(rows, axes).astype(dtype, order=order))
    stream = SpikeStream.open(path, axes=axes, flip=flip, steps=7, height=5, width=9)
    assert stream.shape == (7, 5, 9) and len(stream) == 7 and stream.path == path
    whole = stream[:]
    assert whole.dtype == np.bool_ and whole.flags.c_contiguous
    np.testing.assert_array_equal(whole, SPIKES)
    assert stream[4:4].shape == (0, 5, 9)
    crop = stream.crop(1, 2, 4, 6).crop(1, 3, 2, 3)
    np.testing.assert_array_equal(crop[2:5], SPIKES[2:5, 2:4, 5:8])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(stream))[3:5], SPIKES[3:5])


def test_an_array_in_memory_is_a_stream_that_shares_nothing_it_returns() -> None:
    spikes = SPIKES.astype(np.uint8)
    stream = SpikeStream.from_array(spikes, rate_hz=100.0, threshold=2.0)
    assert (stream.path, stream.rate_hz, stream.threshold) == (None, 100.0, 2.0)
    stream[:][:] = True
    np.testing.assert_array_equal(stream.crop(1, 1, 3, 4)[2:], SPIKES[2:, 1:4, 1:5])
    whole = SpikeStream.from_array(SPIKES)[:]
    assert not np.shares_memory(whole, SPIKES)


def test_pieces_are_the_stream() -> None:
    stream = SpikeStream.from_array(SPIKES).crop(1, 0, 3, 9)
    for steps in (1, 3, 7, 50, None):
        starts, pieces = zip(*stream.pieces(1, 6, steps=steps), strict=True)
        assert all(len(piece) <= (steps or 50) for piece in pieces)
        assert starts[0] == 1
        np.testing.assert_array_equal(np.concatenate(pieces), SPIKES[1:6, 1:4])


@pytest.mark.parametrize("axes", ["shw", "hws"])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_mapped_arrays_copy_only_the_box(tmp_path: Path, name: str, axes: Axes) -> None:
    SAVERS[name](tmp_path / name, stored(SPIKES, axes))
    stream = SpikeStream.open(tmp_path / name, axes=axes)
    source: Any = stream.source
    assert isinstance(source.values, np.memmap)
    touched = []

    class Recorder(np.ndarray):  # type: ignore[type-arg]
        def __getitem__(self, key: object) -> object:
            part = np.asarray(self)[key]  # type: ignore[index]
            touched.append(part.nbytes)
            return part

    object.__setattr__(source, "values", np.asarray(source.values).view(Recorder))
    stream.crop(1, 2, 3, 4)[2:4]
    assert touched == [2 * 3 * 4]


def test_hdf5_reads_only_the_chunks_of_the_box(tmp_path: Path) -> None:
    """All other chunks are damaged, which HDF5 would notice when it inflates them."""
    path = tmp_path / "a.h5"
    spikes = np.random.default_rng(0).random((64, 32, 32)) < 0.5
    with h5py.File(path, "w") as file:
        data = file.create_dataset("a", data=spikes, chunks=(8, 16, 16), compression="gzip")
        chunks = [data.id.get_chunk_info(i) for i in range(data.id.get_num_chunks())]
    with path.open("r+b") as raw:
        for chunk in chunks:
            if chunk.chunk_offset != (16, 0, 16):
                raw.seek(chunk.byte_offset)
                raw.write(b"\xff" * chunk.size)
    stream = SpikeStream.open(path, axes="shw")
    part = stream.crop(2, 17, 9, 10)[18:22]
    np.testing.assert_array_equal(part, spikes[18:22, 2:11, 17:27])
    with pytest.raises(DataFormatError, match=r"cannot read the spike file.*a.h5"):
        stream[15:17]


@pytest.mark.parametrize("name", SAVERS)
def test_the_axes_of_arrays_must_be_given(tmp_path: Path, name: str) -> None:
    SAVERS[name](tmp_path / name, SPIKES)
    with pytest.raises(ConfigError, match=r"axes must be given.*shw, swh.*--axes"):
        SpikeStream.open(tmp_path / name)
    with pytest.raises(ConfigError, match=r"order of axes.*got shx"):
        SpikeStream.open(tmp_path / name, axes="shx")  # type: ignore[arg-type]
    with pytest.raises(DataFormatError, match=r"another size.*got 7x5, expected 5x9.*axes"):
        SpikeStream.open(tmp_path / name, axes="hws", height=5, width=9)
    with pytest.raises(DataFormatError, match=r"another number of steps.*got 7 steps, expected 8"):
        SpikeStream.open(tmp_path / name, axes="shw", steps=8)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("a.npy", {"bit_order": "little"}),
        ("a.npz", {"pad_to_byte": True}),
        ("a.h5", {"dropped_columns": [(0, 1)]}),
        ("a.dat", {"axes": "shw"}),
        ("a.dat", {"key": "spk"}),
    ],
)
def test_settings_of_another_format_are_refused(
    tmp_path: Path, name: str, given: dict[str, Any]
) -> None:
    (tmp_path / name).write_bytes(bytes(8))
    with pytest.raises(ConfigError, match=f"{next(iter(given))} says nothing of"):
        needed: Any = {"height": 8, "width": 8} if name == "a.dat" else {"axes": "shw"}
        SpikeStream.open(tmp_path / name, **(needed | given))


@pytest.mark.parametrize("name", ["two.npz", "two.h5"])
def test_one_of_several_arrays_is_chosen_by_its_key(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save = np.savez if name.endswith("npz") else save_hdf5
    save(path, spk=SPIKES, label=np.zeros(3))  # type: ignore[operator]
    np.testing.assert_array_equal(SpikeStream.open(path, axes="shw", key="spk")[:], SPIKES)
    with pytest.raises(DataFormatError, match=r"2 arrays: (spk, label|label, spk).*give the key"):
        SpikeStream.open(path, axes="shw")
    with pytest.raises(DataFormatError, match=r"no such array.*got key voxels.*(spk|label), "):
        SpikeStream.open(path, axes="shw", key="voxels")
    with pytest.raises(DataFormatError, match=r"must be \(s, h, w\).*label.*shape \(3,\)"):
        SpikeStream.open(path, axes="shw", key="label")


def test_files_without_arrays_are_refused(tmp_path: Path) -> None:
    save_hdf5(tmp_path / "a.h5")
    np.savez(tmp_path / "a.npz")
    for name in ("a.h5", "a.npz"):
        with pytest.raises(DataFormatError, match="0 arrays: none"):
            SpikeStream.open(tmp_path / name, axes="shw")


@pytest.mark.parametrize("name", SAVERS)
@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4), complex), "0 or 1.*got values of type complex128"),
        (np.full((2, 3, 4), 7, np.uint8), r"0 or 1.*got values 7 to 7 in the steps \[0, 2\)"),
        (np.full((2, 3, 4), -1, np.int8), "0 or 1.*got values -1 to -1"),
        (np.zeros((3, 4), bool), r"must be \(s, h, w\).*shape \(3, 4\)"),
        (np.zeros((0, 3, 4), bool), r"a step and a pixel at least.*shape \(0, 3, 4\)"),
    ],
)
def test_what_is_no_spikes_is_refused(
    tmp_path: Path, name: str, array: NDArray[Any], message: str
) -> None:
    SAVERS["a.h5" if not array.size and name == "chunks.hdf5" else name](tmp_path / name, array)
    with pytest.raises(DataFormatError, match=message) as caught:
        SpikeStream.open(tmp_path / name, axes="shw")[:]
    assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(DataFormatError, match=message):
        SpikeStream.from_array(array)[:]


@pytest.mark.parametrize("name", SAVERS)
@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "text", "folder", "missing"])
def test_damaged_files_are_one_error_that_names_them(
    tmp_path: Path, name: str, damage: str
) -> None:
    path = tmp_path / f"Aufnähme 1 記録 {name}"
    SAVERS[name](path, np.tile(SPIKES, (40, 1, 1)))
    content = path.read_bytes()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(content[: len(content) * 2 // 3])
        case "noise":
            path.write_bytes(np.random.default_rng(0).bytes(len(content)))
        case "text":
            path.write_text("frame_idx,t0,t1\n" * 9)
        case "folder" | "missing":
            path.unlink()
            if damage == "folder":
                path.mkdir()
    with pytest.raises(DataFormatError) as caught:
        SpikeStream.open(path, axes="shw")[:]
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_headers_that_do_not_fit_their_file_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "long.npy", SPIKES)
    with (tmp_path / "long.npy").open("ab") as file:
        file.write(b"\0")
    np.savez_compressed(tmp_path / "huge.npz", spk=SPIKES)
    with zipfile.ZipFile(tmp_path / "huge.npz") as archive:
        content = archive.read("spk.npy").replace(b"(7, 5, 9)", b"(7000000000, 50, 90)")
    with zipfile.ZipFile(tmp_path / "huge.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("spk.npy", content)
    np.save(tmp_path / "objects.npy", np.array([None, {}]), allow_pickle=True)
    np.save(tmp_path / "open.npy", SPIKES)
    content = (tmp_path / "open.npy").read_bytes()
    (tmp_path / "open.npy").write_bytes(content.replace(b"}", b" "))
    np.savez(tmp_path / "open.npz", spk=SPIKES)
    with zipfile.ZipFile(tmp_path / "open.npz", "w") as archive:
        archive.writestr("spk.npy", content.replace(b"}", b"("))
    for name in ("long.npy", "huge.npz", "objects.npy", "open.npy", "open.npz"):
        with pytest.raises(DataFormatError, match=f"cannot read.*{name}"):
            SpikeStream.open(tmp_path / name, axes="shw")


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["rate_hz", "threshold"])
def test_impossible_rates_and_thresholds_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be positive and finite: got {value}"):
        SpikeStream.from_array(SPIKES, **{name: value})


def test_a_file_that_may_not_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests may run as root, whom no permission stops."""
    for name in SAVERS:
        SAVERS[name](tmp_path / name, SPIKES)
    (tmp_path / "a.dat").write_bytes(bytes(8))

    def refuse(path: object, *args: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        for function in ("builtins.open", "io.open", "h5py.File"):
            patch.setattr(function, refuse)
        for name in [*SAVERS, "a.dat"]:
            given: Any = {"height": 8, "width": 8} if name == "a.dat" else {"axes": "shw"}
            with pytest.raises(DataFormatError, match=r"cannot read.*Permission denied.*Fix: "):
                SpikeStream.open(tmp_path / name, **given)
        patch.setattr(os, "stat", refuse)
        with pytest.raises(DataFormatError, match=r"cannot read.*Permission denied"):
            SpikeStream.open(tmp_path / "a.dat", height=8, width=8)


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(bytes(8))
    with pytest.raises(DataFormatError, match=r"names no format.*got \.csv.*\.dat.*\.hdf5"):
        SpikeStream.open(tmp_path / "a.csv", height=8, width=8)


def test_only_bit_packed_files_have_packed_bytes() -> None:
    with pytest.raises(ConfigError, match="packed bytes"):
        _ = SpikeStream.from_array(SPIKES).packed
    with pytest.raises(TypeError, match="slices of step 1"):
        SpikeStream.from_array(SPIKES)[::2]


def linked_elsewhere(folder: Path, how: str) -> Path:
    """Write an HDF5 file whose dataset `spk` has the spikes of another file; return its path."""
    array = np.ones((4, 3, 8), np.uint8)
    save_hdf5(folder / "victim.h5", spk=array)
    (folder / "victim.bin").write_bytes(array.tobytes())
    with h5py.File(folder / "a.h5", "w") as file:
        match how:
            case "virtual":
                layout = h5py.VirtualLayout(array.shape, np.uint8)
                layout[:] = h5py.VirtualSource(folder / "victim.h5", "spk", array.shape)
                file.create_virtual_dataset("spk", layout)
            case "external":
                place = (str(folder / "victim.bin"), 0, array.size)
                file.create_dataset("spk", array.shape, np.uint8, external=[place])
            case "link":
                file["spk"] = h5py.ExternalLink("victim.h5", "spk")
            case "group":
                file["group"] = h5py.ExternalLink("victim.h5", "/")
            case "soft":
                file["other"] = h5py.ExternalLink("victim.h5", "/")
                file["spk"] = h5py.SoftLink("/other/spk")
    return folder / "a.h5"


@pytest.mark.parametrize("how", ["virtual", "external", "link", "group", "soft"])
@pytest.mark.parametrize("key", [None, "spk", "group/spk", "other/spk", "/spk", "../spk"])
def test_an_hdf5_file_leads_to_no_other(how: str, key: str | None, tmp_path: Path) -> None:
    path = linked_elsewhere(tmp_path, how)
    with pytest.raises(DataFormatError, match=r"a\.h5") as caught:
        SpikeStream.open(path, axes="shw", key=key)
    if how in ("virtual", "external") and key in (None, "spk"):
        assert "lie in other files" in str(caught.value)


@pytest.mark.parametrize("how", ["virtual", "external", "link", "soft"])
def test_an_hdf5_file_that_changed_leads_to_no_other(how: str, tmp_path: Path) -> None:
    save_hdf5(tmp_path / "a.h5", spk=np.ones((4, 3, 8), np.uint8))
    stream = SpikeStream.open(tmp_path / "a.h5", axes="shw")
    assert stream[:].all()
    linked_elsewhere(tmp_path, how)
    with pytest.raises(DataFormatError, match="lie in other files"):
        stream[:]


def test_an_hdf5_dataset_without_values_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["spk"] = h5py.Empty("u1")
    with pytest.raises(DataFormatError, match="with a step and a pixel at least"):
        SpikeStream.open(tmp_path / "a.h5", axes="shw")
