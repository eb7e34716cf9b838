"""Streams written in every format read back alike, by our reader and by NumPy and h5py alone."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.spikes import stream as module
from vrtspike.spikes.array_file import Axes
from vrtspike.spikes.packed_writer import write_dat
from vrtspike.spikes.stream import SpikeStream
from vrtspike.spikes.write import write_stream

NAMES = ["a.dat", "a.npy", "a.npz", "a.h5", "a.HDF5"]
SPIKES = np.random.default_rng(4).random((37, 6, 20)) < 0.4


def settings(name: str, axes: Axes | None = None) -> dict[str, Any]:
    """Return what is needed to read a file of `SPIKES`."""
    if name.endswith(".dat"):
        return {"height": 6, "width": 20}
    return {"axes": axes or "shw"}


def small_pieces(monkeypatch: pytest.MonkeyPatch, steps: int = 5) -> None:
    """Let streams be gone through in pieces of few steps."""
    monkeypatch.setattr(module, "PIECE_BYTES", steps * 6 * 20)


@pytest.mark.parametrize("axes", ["shw", "hws", None])
@pytest.mark.parametrize("flip", [None, True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_written_stream_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, axes: Axes | None, flip: bool | None
) -> None:
    small_pieces(monkeypatch)
    path = tmp_path / name
    given = {} if name == "a.dat" else {"axes": axes}
    write_stream(path, SPIKES, flip=flip, **given)
    stream = SpikeStream.open(path, flip=flip, **settings(name, axes))
    np.testing.assert_array_equal(stream[:], SPIKES)
    np.testing.assert_array_equal(stream.crop(1, 3, 4, 9)[7:19], SPIKES[7:19, 1:5, 3:12])
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("target", NAMES)
def test_every_format_converts_to_every_other(tmp_path: Path, source: str, target: str) -> None:
    (tmp_path / "b").mkdir()
    write_stream(tmp_path / source, SPIKES)
    crop = SpikeStream.open(tmp_path / source, **settings(source)).crop(0, 4, 6, 16)
    write_stream(tmp_path / "b" / target, crop)
    more = {"width": 16} if target == "a.dat" else {}
    stream = SpikeStream.open(tmp_path / "b" / target, **(settings(target) | more))
    np.testing.assert_array_equal(stream[:], SPIKES[:, :, 4:])


def test_a_file_converts_onto_itself(tmp_path: Path) -> None:
    for name in NAMES:
        path = tmp_path / name
        write_stream(path, SPIKES)
        write_stream(path, SpikeStream.open(path, **settings(name)), flip=False)
        np.testing.assert_array_equal(
            SpikeStream.open(path, flip=False, **settings(name))[:], SPIKES
        )


@pytest.mark.parametrize("axes", ["shw", "hws"])
def test_other_libraries_read_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axes: Axes
) -> None:
    small_pieces(monkeypatch)
    expected = SPIKES.transpose(1, 2, 0) if axes == "hws" else SPIKES
    write_stream(tmp_path / "a.npy", SPIKES, axes=axes)
    write_stream(tmp_path / "a.npz", SPIKES, axes=axes, key="spk")
    write_stream(tmp_path / "a.h5", SPIKES, axes=axes)
    with np.load(tmp_path / "a.npz") as arrays, h5py.File(tmp_path / "a.h5") as file:
        assert arrays.files == ["spk"] and list(file) == ["spikes"]
        for values in (np.load(tmp_path / "a.npy"), arrays["spk"], file["spikes"][:]):
            assert values.dtype == np.uint8
            np.testing.assert_array_equal(values, expected)
    write_stream(tmp_path / "a.dat", SPIKES)
    bits = np.unpackbits(np.fromfile(tmp_path / "a.dat", np.uint8), bitorder="little")
    np.testing.assert_array_equal(bits.reshape(37, 6, 20)[:, ::-1], SPIKES)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_spikes_give_the_same_bytes(tmp_path: Path, name: str) -> None:
    write_stream(tmp_path / name, SPIKES)
    first = (tmp_path / name).read_bytes()
    write_stream(tmp_path / name, SPIKES.astype(np.int32))
    assert (tmp_path / name).read_bytes() == first


def test_writing_holds_one_piece_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch, 16)
    for name in NAMES:
        read: list[int] = []
        stream = SpikeStream.from_array(SPIKES)
        whole = stream.source

        class Counted:
            path, shape = None, whole.shape

            def read(self, start: int, stop: int, box: Any) -> Any:
                read.append(stop - start)  # noqa: B023
                return whole.read(start, stop, box)  # noqa: B023

        object.__setattr__(stream, "source", Counted())
        write_stream(tmp_path / name, stream)
        assert read == [16, 16, 5], name


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("old")
    late = np.concatenate([SPIKES, np.full((1, 6, 20), 2)])
    for wrong, message in [
        (late, "0 or 1"),
        (np.zeros((2, 8), bool), "must be"),
        (SPIKES * 0.5, "0 or 1"),
        (SPIKES[:0], "a step"),
    ]:
        with pytest.raises(DataFormatError, match=message) as caught:
            write_stream(path, wrong)
        assert str(path) in str(caught.value)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Let every write beyond `size` bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [100, 20_000])
def test_a_disk_that_fills_up_is_one_error_and_leaves_nothing(
    tmp_path: Path, name: str, size: int
) -> None:
    spikes = np.random.default_rng(0).random((80, 64, 64)) < 0.5
    with disk_of(size), pytest.raises(DataFormatError, match="cannot write the file") as caught:
        write_stream(tmp_path / name, spikes)
    assert str(tmp_path / name) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(DataFormatError, match=r"No space left on device.*a\.dat.*Fix: free space"):
        write_dat(tmp_path / "a.dat", SPIKES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_impossible_places_and_settings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataFormatError, match=r"cannot write.*No such file.*make the folder"):
        write_stream(tmp_path / "none" / name, SPIKES)
    (tmp_path / name).mkdir()
    with pytest.raises(DataFormatError, match=r"cannot write.*a folder has this name"):
        write_stream(tmp_path / name, SPIKES)
    if name == "a.dat":
        for wrong in ({"axes": "shw"}, {"key": "spk"}):
            with pytest.raises(ConfigError, match="says nothing of"):
                write_stream(tmp_path / name, SPIKES, **wrong)  # type: ignore[arg-type]
    else:
        with pytest.raises(ConfigError, match="bit_order says nothing of"):
            write_stream(tmp_path / name, SPIKES, bit_order="little")
        with pytest.raises(ConfigError, match="order of axes"):
            write_stream(tmp_path / name, SPIKES, axes="whs")  # type: ignore[arg-type]
    if name not in ("a.dat", "a.npy"):
        with pytest.raises(ConfigError, match="the key must name an array"):
            write_stream(tmp_path / name, SPIKES, key="/")
    with pytest.raises(ConfigError, match="names no format"):
        write_stream(tmp_path / "a.tif", SPIKES)


def test_genuine_files_are_the_same_in_every_format(shared: Path, tmp_path: Path) -> None:
    path = shared / "data" / "reds_200_part1.dat"
    stream = SpikeStream.open(path, height=250, width=400)
    write_stream(tmp_path / "a.dat", stream)
    assert (tmp_path / "a.dat").read_bytes() == path.read_bytes()
    for name in ("a.npy", "a.npz", "a.h5"):
        write_stream(tmp_path / name, stream, axes="hws")
        again = SpikeStream.open(tmp_path / name, axes="hws", steps=301, height=250, width=400)
        np.testing.assert_array_equal(
            again.crop(7, 9, 200, 301)[140:161], stream.crop(7, 9, 200, 301)[140:161]
        )
