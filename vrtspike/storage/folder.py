"""Folders of files, on this machine or in an object store, behind one small interface.

A folder is a path, or a URI that pyarrow (`s3://`, `gs://`, `hdfs://`, `abfss://`) or fsspec
understands; credentials and endpoints come from the environment or the URI's query, as those
libraries document. Files are named by their path below the folder, with slashes. A file is written
whole or not at all: locally by renaming, in an object store because an object appears when it is
complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from vrtspike.errors import ConfigError, DataFormatError, StorageError, one_line
from vrtspike.storage.atomic import Sink, atomic_stream
from vrtspike.storage.uri import is_remote, without_options

if TYPE_CHECKING:  # loading it takes a fifth of a second: only where a file is opened
    import pyarrow as pa
    from pyarrow import fs

COPY_BYTES = 1 << 22


class Stamp(NamedTuple):
    """What tells a changed file from an unchanged one: bytes, and nanoseconds since 1970."""

    size: int
    modified: int


def local_path(where: str | os.PathLike[str], what: str) -> Path:
    """Return a place as a path; a URI is refused, for `what` is written to this machine only."""
    folder = Folder.at(where)
    if folder.remote:
        raise ConfigError(
            f"{what} cannot be written to an object store",
            got=folder,
            expected="a path",
            fix="write to a folder on this machine, and copy it",
        )
    return folder.path


def check_target(path: Path) -> None:
    """Refuse a file to write that cannot be one, before the work whose result it is to hold."""
    if os.path.isdir(path):
        raise ConfigError("cannot write the file: a folder has this name", where=path)
    for folder in path.parents:
        if os.path.isdir(folder):
            return
        if os.path.lexists(folder):
            raise ConfigError(
                "cannot write the file: this is no folder", where=folder, fix="correct the path"
            )


@dataclass(frozen=True)
class Folder:
    """A folder by its path or URI; small enough to send between processes."""

    where: str

    @classmethod
    def of_file(cls, where: str | os.PathLike[str]) -> tuple[Folder, str]:
        """Return the folder that the file at a path or URI is in, and the file's name in it."""
        text = cls.at(where).where
        if not is_remote(text):
            return cls(os.path.dirname(text) or "."), os.path.basename(text)
        place, question, options = text.partition("?")
        folder, _, name = place.rpartition("/")
        return cls(folder + question + options), unquote(name)

    @classmethod
    def at(cls, where: str | os.PathLike[str]) -> Folder:
        """Return the folder at a path or URI; nothing is read yet."""
        text = str(where)
        return cls(text.removeprefix("file://"))

    def __str__(self) -> str:
        """Return the place as it may be shown and written down: without keys and options."""
        if not self.remote:
            return self.where
        return without_options(self.where)

    def __getstate__(self) -> dict[str, Any]:
        return {"where": self.where}

    @property
    def remote(self) -> bool:
        """Tell whether files have to be fetched before other libraries can read them."""
        return is_remote(self.where)

    @property
    def path(self) -> Path:
        """Return the path of a folder on this machine."""
        assert not self.remote
        return Path(self.where)

    def absolute(self) -> Folder:
        """Return this folder so that processes that run elsewhere find it."""
        return self if self.remote else Folder(str(self.path.absolute()))

    def below(self, name: str) -> Folder:
        """Return a folder below this one, whether or not it is there; options of a URI stay."""
        if not self.remote:
            return Folder(f"{self.where.rstrip('/')}/{name}")
        place, question, options = self.where.partition("?")
        return Folder(f"{place.rstrip('/')}/{quote(name)}{question}{options}")

    def name(self, file: str) -> str:
        """Return the full name of a file, for messages."""
        return f"{self}/{file}"

    def exists(self) -> bool:
        """Tell whether there is a folder here."""
        with self._doing("cannot look at the folder"):
            if not self.remote:
                return self.path.exists()
            return bool(self._info().type.name != "NotFound")

    def listing(self, below: str = "") -> dict[str, Stamp]:
        """Return the visible files below this folder by name, sorted; those that start with a dot,
        or lie in such a folder, are not visible."""
        if not self.remote:
            found = dict(_walk(self.path / below, below))
        else:
            from pyarrow import fs

            system, root = self._system
            selector = fs.FileSelector(f"{root}/{below}" if below else root, recursive=True)
            with self._doing("cannot list the folder", below):
                infos = system.get_file_info(selector)
            found = {
                info.path[len(root) :].lstrip("/"): Stamp(info.size, info.mtime_ns or 0)
                for info in infos
                if info.is_file
            }
            found = {k: v for k, v in found.items() if not any(map(_hidden, k.split("/")))}
        return dict(sorted(found.items()))

    def folders(self) -> list[str]:
        """Return the visible folders right below this one, sorted; none where there is no folder.

        In an object store these are the beginnings of names that end at a slash.
        """
        with self._doing("cannot list the folder"):
            if not self.remote:
                if not self.path.exists():
                    return []
                names = [entry.name for entry in os.scandir(self.path) if entry.is_dir()]
            else:
                from pyarrow import fs

                system, root = self._system
                selector = fs.FileSelector(root, allow_not_found=True)
                infos = system.get_file_info(selector)
                names = [info.base_name for info in infos if info.type.name == "Directory"]
        return sorted(name for name in names if not _hidden(name))

    def empty_folders(self) -> list[str]:
        """Return the visible folders without a file below; an object store has none."""
        if self.remote:
            return []
        names = []
        for folder, below, _ in os.walk(self.path):
            below[:] = [name for name in below if not _hidden(name)]
            names += [Path(folder, name).relative_to(self.path).as_posix() for name in below]
        full: set[str] = set()
        for file in self.listing():
            name = file.rpartition("/")[0]
            while name and name not in full:
                full.add(name)
                name = name.rpartition("/")[0]
        return sorted(set(names) - full)

    def size(self, file: str) -> int | None:
        """Return the bytes of a file, or None where there is none."""
        with self._doing("cannot look at the file", file):
            if not self.remote:
                path = self.path / file
                return path.stat().st_size if path.is_file() else None
            info = self._info(file)
            return int(info.size) if info.is_file else None

    def read(self, file: str) -> bytes:
        """Return the content of a file."""
        with self._doing("cannot read the file", file):
            if not self.remote:
                return (self.path / file).read_bytes()
            with self._open(file) as stream:
                content: bytes = stream.read()
                return content

    def open(self, file: str) -> pa.NativeFile:
        """Open a file for random access; one on this machine is mapped into memory."""
        with self._doing("cannot read the file", file):
            return self._open(file)

    def write(self, file: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        with self.stream(file) as sink:
            sink.write(content)

    @contextlib.contextmanager
    def stream(self, file: str) -> Iterator[Sink]:
        """Write a file piece by piece; a block that fails leaves none of this name in a store, and
        the one that was there before on this machine."""
        with self._doing("cannot write the file", file):
            if not self.remote:
                with atomic_stream(self.path / file) as sink:
                    yield sink
                return
            system, root = self._system
            sink = system.open_output_stream(f"{root}/{file}")
            try:
                yield sink
                sink.close()
            except BaseException:
                # pyarrow cannot abandon a stream: closed or forgotten, it makes an object of what
                # was written.
                with contextlib.suppress(Exception):
                    sink.close()
                with contextlib.suppress(Exception):
                    system.delete_file(f"{root}/{file}")
                raise

    def remove(self, file: str) -> None:
        """Delete a file, if it is there."""
        with self._doing("cannot delete the file", file), contextlib.suppress(FileNotFoundError):
            if not self.remote:
                (self.path / file).unlink()
                return
            system, root = self._system
            system.delete_file(f"{root}/{file}")

    def clear(self) -> None:
        """Delete this folder and all that is in it, if it is there."""
        with self._doing("cannot delete the folder"):
            if not self.remote:
                _delete_tree(self.path)
                return
            system, root = self._system
            with contextlib.suppress(FileNotFoundError):
                system.delete_dir(root)

    def sha256(self, file: str) -> str:
        """Return the SHA-256 of a file."""
        with self._doing("cannot read the file", file), self._open(file) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    @contextlib.contextmanager
    def local(self, files: Iterable[str]) -> Iterator[Path]:
        """Give a folder on this machine that holds the files: this one, or a copy for a while."""
        if not self.remote:
            yield self.path
            return
        with tempfile.TemporaryDirectory(prefix="vrtspike-") as copy:
            for file in files:
                target = Path(copy) / file
                with self._doing("cannot fetch the file", file):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with self._open(file) as source, target.open("wb") as sink:
                        shutil.copyfileobj(source, sink, COPY_BYTES)
            yield Path(copy)

    @cached_property
    def _system(self) -> tuple[fs.FileSystem, str]:
        """Return the file system of a URI, and the path in it."""
        from pyarrow import fs

        try:
            system, path = fs.FileSystem.from_uri(self.where)
        except (OSError, _arrow_error()) as error:
            system, path = self._fsspec(error)
        return system, path.rstrip("/")

    def _fsspec(self, refusal: Exception) -> tuple[fs.FileSystem, str]:
        """Return the file system that fsspec has for a URI that pyarrow does not know."""
        import fsspec
        from pyarrow import fs

        try:
            system, path = fsspec.core.url_to_fs(self.where)
        except (ImportError, ValueError, OSError) as error:
            # Of a scheme that pyarrow knows, its reason is the one that helps.
            unknown = "Unrecognized filesystem type" in str(refusal)
            reason = error if unknown else refusal
            raise self._failed("cannot reach this place", "", reason) from None
        return fs.PyFileSystem(fs.FSSpecHandler(system)), path

    def _info(self, file: str = "") -> fs.FileInfo:
        """Ask a store for what it knows of a file, or of the folder."""
        system, root = self._system
        return system.get_file_info(f"{root}/{file}" if file else root)

    def _open(self, file: str) -> pa.NativeFile:
        if not self.remote:
            import pyarrow as pa

            return pa.memory_map(str(self.path / file))
        system, root = self._system
        return system.open_input_file(f"{root}/{file}")

    @contextlib.contextmanager
    def _doing(self, what: str, file: str = "") -> Iterator[None]:
        """Turn what a disk or a store raises into one line that says what could not be done."""
        try:
            yield
        except (OSError, _arrow_error()) as error:
            raise self._failed(what, file, error) from None

    def _failed(self, what: str, file: str, error: Exception) -> DataFormatError:
        """Return one line on a failure; what is not there will not be there later either."""
        where = self.name(file) if file else str(self)
        reason = getattr(error, "strerror", None) or one_line(error)
        if self.remote:
            reason = re.sub(r"://\S*@", "://", reason.replace(self.where, str(self)))
        fix = "write a space as %20, and a / in a key as %2F" if "parse URI" in reason else None
        kind = DataFormatError if isinstance(error, FileNotFoundError) else StorageError
        return kind(what, where=where, got=reason[:300], fix=fix)


def _delete_tree(folder: Path) -> None:
    """Delete a folder; others may be deleting files of it at the same time."""
    while folder.exists():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file on this machine."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _walk(
    folder: Path, name: str, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, Stamp]]:
    """Yield the visible files below a folder, following links to folders but those it lies in.

    `above` are the devices and inodes of the folders on the way down.
    """
    folders = []
    try:
        status = os.stat(folder)
        if (here := (status.st_dev, status.st_ino)) in above:
            return
        for entry in list(os.scandir(folder)):
            if _hidden(entry.name):
                continue
            if not _is_utf8(entry.name):
                raise DataFormatError(
                    "the name is not UTF-8", where=ascii(entry.path), fix="rename the file"
                )
            below = f"{name}/{entry.name}" if name else entry.name
            if entry.is_dir():
                folders.append((Path(entry.path), below))
            elif entry.is_file():
                stat = entry.stat()
                yield below, Stamp(stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise DataFormatError("cannot list the folder", where=folder, got=error.strerror) from None
    for path, below in folders:
        yield from _walk(path, below, above | {here})


def _is_utf8(name: str) -> bool:
    """Tell whether a name that the system gave is text; other bytes come as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _arrow_error() -> type[Exception]:
    """Return what pyarrow raises; asked for only when something has been raised."""
    import pyarrow

    error: type[Exception] = pyarrow.ArrowException
    return error
