"""Spikes stored as arrays: NumPy's `.npy` and `.npz`, HDF5, and arrays in memory.

In: a file and the order of its axes, which files of the field differ in and none says: `shw` is
steps first, then rows, then columns. Out: a source that reads boxes. Values are bool, or numbers of
any type that are exactly 0 and 1, or 0 and 255, checked on what is read; rows are stored top-down
unless `flip` says bottom-up.

MATLAB's `.mat` holds arrays with the axes that MATLAB shows: of version 7.3 it is HDF5, which has
them reversed; of earlier versions the array is read whole.

`.npy` files and uncompressed members of `.npz` files are memory-mapped; compressed members are read
whole. An HDF5 file is opened for each read, so that a stream can be sent between processes and
leaves no file open; HDF5 reads only the chunks that contain the box.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np
from jaxtyping import Bool
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.spikes.source import Box, file_size, unreadable

Axes = Literal["shw", "swh", "hsw", "hws", "wsh", "whs"]
Shape = tuple[int, int, int]
REVERSED: dict[Axes, Axes] = {
    "shw": "whs",
    "whs": "shw",
    "hws": "swh",
    "swh": "hws",
    "hsw": "wsh",
    "wsh": "hsw",
}
HDF5_MARK = b"\x89HDF\r\n\x1a\n"
# RuntimeError: encrypted, or a compression that Python lacks. SyntaxError and TokenError: NumPy
# parses headers as Python.
NUMPY_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class ArraySource:
    """An array in memory or memory-mapped; `shape` is (s, h, w) for any order of axes."""

    path: Path | None
    shape: Shape
    axes: Axes
    flip: bool
    values: NDArray[Any]
    where: str

    def read(self, start: int, stop: int, box: Box) -> Bool[np.ndarray, "s h w"]:
        """Return a copy of the steps [start, stop) of a box."""
        return read_box(self, self.values, start, stop, box)


@dataclass(frozen=True, eq=False)
class Hdf5Source:
    """A dataset in an HDF5 file; `shape` is (s, h, w) for any order of axes."""

    path: Path
    shape: Shape
    axes: Axes
    flip: bool
    key: str
    where: str

    def read(self, start: int, stop: int, box: Box) -> Bool[np.ndarray, "s h w"]:
        """Read the steps [start, stop) of a box from the file."""
        with _open_hdf5(self.path) as file:
            return read_box(self, _own_dataset(file, self.key, self.where), start, stop, box)


def memory_source(spikes: NDArray[Any], where: str) -> ArraySource:
    """Return a source of an array `(s, h, w)`, rows top-down; `where` names it in errors."""
    shape = _stream_shape(spikes.shape, spikes.dtype, "shw", where)
    return ArraySource(None, shape, "shw", False, spikes, where)


def open_array(
    path: Path, *, axes: Axes | None, key: str | None, flip: bool
) -> ArraySource | Hdf5Source:
    """Open a `.npy`, `.npz` or HDF5 file by its suffix; `key` names one of several arrays.

    Raises ConfigError for wrong arguments and DataFormatError for files that hold no stream.
    """
    if axes is None:
        raise ConfigError(
            "the order of the file's axes must be given, for no file says it",
            where=path,
            expected=f"axes {', '.join(get_args(Axes))} (s steps, h rows, w columns)",
            fix="give the axes (--axes)",
        )
    if axes not in get_args(Axes):
        raise ConfigError(
            "unknown order of axes", where=path, got=axes, expected=", ".join(get_args(Axes))
        )
    size = file_size(path)
    match path.suffix.lower():
        case ".npy":
            if key is not None:
                raise ConfigError("a .npy file holds one array, without key", where=path, got=key)
            with _numpy_errors(path):
                values = _map_npy(path, 0, size)
            where = str(path)
        case ".npz":
            with _numpy_errors(path):
                values, name = _npz_member(path, key)
            where = f"{path}, array {name}"
        case ".mat" if not is_hdf5(path):
            values, name = _mat_array(path, key)
            where = f"{path}, array {name}"
        case suffix:
            if suffix == ".mat":
                axes = REVERSED[axes]
            with _open_hdf5(path) as file:
                name = _chosen(path, key, _hdf5_datasets(file))
                where = f"{path}, dataset {name}"
                dataset = _own_dataset(file, name, where)
                shape = _stream_shape(dataset.shape or (), dataset.dtype, axes, where)
            return Hdf5Source(path, shape, axes, flip, name, where)
    shape = _stream_shape(values.shape, values.dtype, axes, where)
    return ArraySource(path, shape, axes, flip, values, where)


def read_box(
    source: ArraySource | Hdf5Source, values: Any, start: int, stop: int, box: Box
) -> Bool[np.ndarray, "s h w"]:
    """Copy the steps [start, stop) of a box as bool; `values` is an array or an HDF5 dataset.

    Raises DataFormatError if a value is not 0 or 1 (or 0 or 255).
    """
    asked = {
        "s": slice(start, stop),
        "h": box.stored_rows(source.shape[1], source.flip),
        "w": slice(box.left, box.left + box.width),
    }
    part = np.asarray(values[tuple(asked[axis] for axis in source.axes)])
    part = part.transpose([source.axes.index(axis) for axis in "shw"])
    if part.dtype != np.bool_ and part.size and not _is_binary(part):
        raise DataFormatError(
            "spikes must be 0 or 1",
            where=source.where,
            got=f"values {part.min()} to {part.max()} in the steps [{start}, {stop})",
            expected="bool, or numbers that are exactly 0 and 1, or 0 and 255",
            fix="a voxel grid or an image is not a stream",
        )
    if source.flip:
        part = part[:, ::-1]
    return np.array(part, dtype=np.bool_, order="C")


def _is_binary(part: NDArray[Any]) -> bool:
    """Tell whether all values are 0 or 1, or all 0 or 255."""
    # Integers from 0 to 1 are 0 or 1.
    low, high = part.min(), part.max()
    if part.dtype.kind != "f" and 0 <= low <= high <= 1:
        return True
    return high in (0, 1, 255) and bool(((part == 0) | (part == high)).all())


def is_hdf5(path: Path) -> bool:
    """Tell whether a file is HDF5, also behind MATLAB's own header."""
    with path.open("rb") as file:
        head = file.read(512 + len(HDF5_MARK))
    return head.startswith(HDF5_MARK) or head[512:] == HDF5_MARK


def _mat_array(path: Path, key: str | None) -> tuple[NDArray[Any], str]:
    """Read an array of a MATLAB file of a version before 7.3; return it and its name."""
    from scipy.io import loadmat, whosmat

    try:
        name = _chosen(path, key, [name for name, _, _ in whosmat(path)])
        return np.asarray(loadmat(path, variable_names=[name])[name]), name
    except DataFormatError:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        raise unreadable(path, error) from error


def _stream_shape(shape: tuple[int, ...], dtype: DTypeLike, axes: Axes, where: str) -> Shape:
    """Return (s, h, w), or refuse what cannot be a stream."""
    names = f"({', '.join(axes)})"
    if len(shape) != 3 or min(shape) < 1:
        raise DataFormatError(
            f"spikes must be {names}, with a step and a pixel at least",
            where=where,
            got=f"an array of shape {tuple(shape)}",
        )
    if np.dtype(dtype).kind not in "biuf":
        raise DataFormatError(
            "spikes must be 0 or 1",
            where=where,
            got=f"values of type {np.dtype(dtype)}",
            expected="bool, or numbers that are exactly 0 and 1, or 0 and 255",
            fix="a voxel grid or an image is not a stream",
        )
    steps, rows, columns = (shape[axes.index(axis)] for axis in "shw")
    return steps, rows, columns


def _chosen(path: Path, key: str | None, names: list[str]) -> str:
    """Return `key`, or the name of the only array if `key` is None; otherwise raise
    DataFormatError."""
    listed = ", ".join(names) or "none"
    if key is None and len(names) == 1:
        return names[0]
    if key is None:
        raise DataFormatError(
            "the file does not hold one array alone",
            where=path,
            got=f"{len(names)} arrays: {listed}",
            expected="the key of the spikes",
            fix="give the key of the array that holds the spikes",
        )
    if key not in names:
        raise DataFormatError(
            "the file holds no such array",
            where=path,
            got=f"key {key}",
            expected=f"one of {listed}",
        )
    return key


@contextmanager
def _numpy_errors(path: Path) -> Iterator[None]:
    """Turn NumPy's and zipfile's errors on damaged files into DataFormatError."""
    try:
        yield
    except NUMPY_ERRORS as error:
        raise unreadable(path, error) from error


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of a `.npy`: shape, whether it is in Fortran order, and dtype."""
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    if version == (2, 0):
        return npy.read_array_header_2_0(file)
    raise ValueError(f"version {version} of the .npy format is for records, not for spikes")


def _check_npy_size(got: int, head: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise ValueError if a `.npy` is shorter or longer than its header says."""
    expected = head + math.prod(shape) * dtype.itemsize
    if got != expected or dtype.hasobject:
        raise ValueError(f"{got} bytes, but the header says {expected} ({dtype} of shape {shape})")


def _map_npy(path: Path, offset: int, size: int) -> NDArray[Any]:
    """Memory-map a `.npy` of `size` bytes that starts at byte `offset` of a file."""
    with path.open("rb") as file:
        file.seek(offset)
        shape, fortran, dtype = _npy_header(file)
        begin = file.tell()
    _check_npy_size(size, begin - offset, shape, dtype)
    return np.memmap(path, dtype, "r", begin, shape, "F" if fortran else "C")


def _npz_member(path: Path, key: str | None) -> tuple[NDArray[Any], str]:
    """Memory-map an array of a `.npz`, or read it if it is compressed; return it and its name."""
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if name.endswith(".npy")]
        name = _chosen(path, key, [member.removesuffix(".npy") for member in members])
        info = archive.getinfo(f"{name}.npy")
        encrypted = info.flag_bits & 1
        if info.compress_type == zipfile.ZIP_STORED and not encrypted:
            return _map_npy(path, _stored_offset(path, info), info.file_size), name
        with archive.open(info) as file:
            shape, fortran, dtype = _npy_header(file)
            # Check before reading: a damaged header may ask for any amount of memory.
            _check_npy_size(info.file_size, file.tell(), shape, dtype)
            flat = np.frombuffer(file.read(), dtype)
    return flat.reshape(shape, order="F" if fortran else "C"), name


def _stored_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return the byte where the data of an uncompressed member start, after its local header."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        head = file.read(30)
    name, extra = (int.from_bytes(head[at : at + 2], "little") for at in (26, 28))
    return info.header_offset + 30 + name + extra


@contextmanager
def _open_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading; HDF5's errors on damaged files become DataFormatError."""
    import h5py

    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise unreadable(path, error) from error


def _own_dataset(file: Any, key: str, where: str) -> Any:
    """Return a dataset of a file; raise DataFormatError if its values are in another file.

    HDF5 would follow links, virtual datasets and external storage into any file.
    """
    import h5py

    parts = key.split("/")
    paths = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
    links = (h5py.ExternalLink, h5py.SoftLink)  # a soft link may lead to an external one
    if any(isinstance(file.get(path, getlink=True), links) for path in paths):
        elsewhere: str | None = "a link"
    else:
        dataset = file[key]
        elsewhere = (
            "a virtual dataset"
            if dataset.is_virtual
            else "external storage"
            if dataset.external is not None
            else None
        )
    if elsewhere is not None:
        raise DataFormatError(
            "the dataset's values lie in other files",
            where=where,
            got=elsewhere,
            expected="values in the file itself",
            fix="copy the dataset into a file of its own",
        )
    return dataset


def _hdf5_datasets(file: Any) -> list[str]:
    """Return the names of all datasets of a file."""
    import h5py

    names: list[str] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            names.append(name)

    file.visititems(visit)
    return names
