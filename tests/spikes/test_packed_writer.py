"""Streams on disk: round trips, partial reading, and refusal of what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.spikes.packed_file import BitOrder
from vrtspike.spikes.packed_writer import write_dat
from vrtspike.spikes.stream import SpikeStream

GEOMETRIES = [(4, 8), (5, 16), (3, 5), (7, 9), (6, 12), (1, 1), (8, 20)]


def random_spikes(steps: int, height: int, width: int) -> NDArray[np.bool_]:
    """Return spikes of which no pixel, row or step looks like another."""
    return np.random.default_rng(height * 100 + width).random((steps, height, width)) < 0.4


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("bit_order", ["little", "big"])
@pytest.mark.parametrize("flip", [True, False])
def test_a_written_stream_reads_back(
    tmp_path: Path, geometry: tuple[int, int], bit_order: BitOrder, flip: bool
) -> None:
    height, width = geometry
    spikes = random_spikes(6, height, width)
    write_dat(tmp_path / "a.dat", spikes, bit_order=bit_order, flip=flip)
    stream = SpikeStream.open(
        tmp_path / "a.dat",
        height=height,
        width=width,
        bit_order=bit_order,
        flip=flip,
        pad_to_byte=True,
    )
    assert stream.shape == spikes.shape
    assert stream[:].dtype == np.bool_
    np.testing.assert_array_equal(stream[:], spikes)
    np.testing.assert_array_equal(stream[2:5], spikes[2:5])
    assert len(stream[3:3]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["a.dat"]


def test_bytes_are_laid_out_as_the_field_writes_them(tmp_path: Path) -> None:
    spikes = np.zeros((2, 2, 8), bool)
    spikes[0, 0, 0] = spikes[1, 1, 7] = True
    write_dat(tmp_path / "a.dat", spikes)
    assert (tmp_path / "a.dat").read_bytes() == bytes([0, 1, 128, 0])


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("flip", [True, False])
def test_every_crop_equals_the_crop_of_the_whole(
    tmp_path: Path, geometry: tuple[int, int], flip: bool
) -> None:
    height, width = geometry
    spikes = random_spikes(3, height, width)
    write_dat(tmp_path / "a.dat", spikes, flip=flip)
    stream = SpikeStream.open(
        tmp_path / "a.dat", height=height, width=width, flip=flip, pad_to_byte=True
    )
    rng = np.random.default_rng(0)
    for _ in range(20):
        top, left = int(rng.integers(height)), int(rng.integers(width))
        h, w = int(rng.integers(1, height - top + 1)), int(rng.integers(1, width - left + 1))
        crop = stream.crop(top, left, h, w)
        np.testing.assert_array_equal(crop[1:3], spikes[1:3, top : top + h, left : left + w])
        inner = crop.crop(h - 1, w - 1, 1, 1)
        np.testing.assert_array_equal(inner[:], spikes[:, top + h - 1, left + w - 1, None, None])


@pytest.mark.parametrize(
    ("dropped", "width"), [([], 16), ([(0, 3)], 5), ([(5, 8), (13, 16)], 10), ([(2, 3)], 6)]
)
@pytest.mark.parametrize("bit_order", ["little", "big"])
@pytest.mark.parametrize("flip", [True, False])
def test_columns_that_are_no_pixels_are_left_out(
    tmp_path: Path, dropped: list[tuple[int, int]], width: int, bit_order: BitOrder, flip: bool
) -> None:
    stored_width = width + sum(stop - start for start, stop in dropped)
    dump = np.random.default_rng(0).integers(0, 256, (5, -(-3 * stored_width // 8)), np.uint8)
    dump.tofile(tmp_path / "dump.raw")
    stream = SpikeStream.open(
        tmp_path / "dump.raw",
        height=3,
        width=width,
        bit_order=bit_order,
        flip=flip,
        dropped_columns=dropped,
        pad_to_byte=True,
        steps=5,
    )
    expected = naive_read(dump, 3, stored_width, bit_order, flip)
    gone = [column for start, stop in dropped for column in range(start, stop)]
    expected = np.delete(expected, gone, axis=2)
    np.testing.assert_array_equal(stream[:], expected)
    for left in range(width):
        for w in range(1, width - left + 1):
            crop = stream.crop(1, left, 2, w)[2:4]
            np.testing.assert_array_equal(crop, expected[2:4, 1:3, left : left + w])


def naive_read(
    dump: NDArray[np.uint8], height: int, width: int, bit_order: BitOrder, flip: bool
) -> NDArray[np.bool_]:
    """Read the whole file in one line."""
    bits = np.unpackbits(dump, axis=1, bitorder=bit_order)[:, : height * width]
    return bits.reshape(-1, height, width)[:, :: -1 if flip else 1].astype(bool)


@pytest.mark.parametrize(
    "dropped", [[(5, 5)], [(6, 5)], [(-1, 2)], [(15, 20)], [(0, 4), (3, 6)], [(0, 4), (0, 4)]]
)
def test_impossible_dropped_columns_are_refused(
    tmp_path: Path, dropped: list[tuple[int, int]]
) -> None:
    (tmp_path / "a.dat").write_bytes(bytes(64))
    with pytest.raises(ConfigError, match="dropped_columns must be ranges"):
        SpikeStream.open(tmp_path / "a.dat", height=4, width=8, dropped_columns=dropped)


def test_the_size_is_checked_with_the_stored_width(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(bytes(2 * 250 * 416 // 8))
    dump = {"height": 250, "width": 400, "dropped_columns": [(400, 416)]}
    assert SpikeStream.open(tmp_path / "a.dat", **dump).shape == (2, 250, 400)
    with pytest.raises(DataFormatError, match="not a whole number of steps"):
        SpikeStream.open(tmp_path / "a.dat", height=250, width=400)
    (tmp_path / "a.dat").write_bytes(bytes(2 * 250 * 400 // 8))
    with pytest.raises(DataFormatError, match=r"250x400 stored 416 wide.*13000 bytes a step"):
        SpikeStream.open(tmp_path / "a.dat", **dump)


@pytest.mark.parametrize(
    ("dropped", "width", "most"), [([], 16, 3), ([(0, 8)], 8, 3), ([(0, 3)], 10, 6)]
)
def test_only_the_steps_and_rows_that_are_asked_for_are_read(
    tmp_path: Path, dropped: list[tuple[int, int]], width: int, most: int
) -> None:
    stored_width = width + sum(stop - start for start, stop in dropped)
    (tmp_path / "a.dat").write_bytes(bytes(4 * stored_width))
    stream = SpikeStream.open(tmp_path / "a.dat", height=8, width=width, dropped_columns=dropped)
    touched = []

    class Recorder(np.ndarray):  # type: ignore[type-arg]
        def __getitem__(self, key: object) -> object:
            part = np.asarray(self)[key]  # type: ignore[index]
            touched.append(part.nbytes)
            return part.view(Recorder)

    object.__setattr__(stream.source, "packed", np.asarray(stream.packed).view(Recorder))
    stream.crop(2, 0, 3, 8)[1:2]
    assert touched[0] <= stored_width, "one step of 8 rows"
    assert touched[-1] == most, "three rows, of one byte where rows end on bytes"


def _stream(folder: Path, spikes: NDArray[np.bool_]) -> SpikeStream:
    write_dat(folder / "a.dat", spikes)
    return SpikeStream.open(folder / "a.dat", height=spikes.shape[1], width=spikes.shape[2])


@pytest.mark.parametrize("window", [slice(-1, 2), slice(0, 5), slice(3, 2), slice(4, 6)])
def test_a_window_that_leaves_the_stream_is_refused(tmp_path: Path, window: slice) -> None:
    stream = _stream(tmp_path, random_spikes(4, 2, 8))
    with pytest.raises(DataFormatError, match="leaves the stream"):
        stream[window]


def test_a_crop_that_leaves_the_stream_is_refused(tmp_path: Path) -> None:
    stream = _stream(tmp_path, random_spikes(4, 2, 8))
    with pytest.raises(DataFormatError, match="crop leaves"):
        stream.crop(1, 0, 2, 8)


@pytest.mark.parametrize(
    ("size", "steps", "message"),
    [
        (0, None, "empty"),
        (7, None, "not a whole number of steps.*7 bytes = 1 steps \\+ 3 bytes"),
        (12, 4, "another number of steps.*got 3 steps.*expected 4 steps"),
        (16, 3, "another number of steps"),
    ],
)
def test_wrong_sizes_are_refused_with_the_numbers(
    tmp_path: Path, size: int, steps: int | None, message: str
) -> None:
    (tmp_path / "a.dat").write_bytes(bytes(size))
    with pytest.raises(DataFormatError, match=message):
        SpikeStream.open(tmp_path / "a.dat", height=4, width=8, steps=steps)


def test_missing_files_folders_and_absurd_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="no such spike file"):
        SpikeStream.open(tmp_path / "none.dat", height=4, width=8)
    with pytest.raises(DataFormatError, match="must be a file"):
        SpikeStream.open(tmp_path, height=4, width=8)
    (tmp_path / "a.dat").write_bytes(bytes(4))
    with pytest.raises(ConfigError, match="geometry must be positive"):
        SpikeStream.open(tmp_path / "a.dat", height=0, width=8)
    with pytest.raises(ConfigError, match="bit order"):
        SpikeStream.open(tmp_path / "a.dat", height=4, width=8, bit_order="LITTLE")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be given"):
        SpikeStream.open(tmp_path / "a.dat", height=4)


def test_steps_that_do_not_end_on_a_byte_are_refused_unless_told(tmp_path: Path) -> None:
    write_dat(tmp_path / "a.dat", random_spikes(8, 3, 5))
    with pytest.raises(DataFormatError, match="not a multiple of 8"):
        SpikeStream.open(tmp_path / "a.dat", height=3, width=5)


def test_only_zeros_and_ones_are_written_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="0 or 1"):
        write_dat(tmp_path / "a.dat", np.full((1, 2, 8), 2, np.uint8))
    with pytest.raises(DataFormatError, match="must be"):
        write_dat(tmp_path / "a.dat", np.zeros((2, 8), bool))
    assert not list(tmp_path.iterdir())
    write_dat(tmp_path / "a.dat", np.ones((1, 2, 8), np.uint8))
    assert (tmp_path / "a.dat").read_bytes() == b"\xff\xff"


def test_a_genuine_file_needs_the_declared_bit_order(shared: Path) -> None:
    from PIL import Image

    path = shared / "data" / "spk_gopro_000226.dat"
    with Image.open(path.with_suffix(".png")) as image:
        gray = np.asarray(image.convert("RGB").convert("F").resize((640, 360), 4))
    edges = np.diff(gray, axis=1).ravel()
    correlation = {}
    for bit_order in ("little", "big"):
        stream = SpikeStream.open(path, height=360, width=640, steps=88, bit_order=bit_order)
        mean = np.diff(stream[24:56].mean(axis=0), axis=1).ravel()
        correlation[bit_order] = np.corrcoef(mean, edges)[0, 1]
    assert correlation["little"] > 0.6
    assert abs(correlation["big"]) < 0.1
