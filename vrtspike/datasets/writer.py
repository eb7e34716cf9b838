"""Writing dataset folders so that a sequence is there whole or not at all.

Writing may be killed at any moment and started again. Until all is written the folder holds
`.unfinished.yaml`, the text that becomes `dataset.yaml`; a sequence is written beside its place and
renamed. So a folder with `dataset.yaml` is complete, and a sequence under its own name is, and is
not made again. A folder that holds anything else is refused.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vrtspike.datasets.info import INFO_FILE, DatasetInfo, read_info, write_info
from vrtspike.errors import DataFormatError, one_line
from vrtspike.storage.atomic import FIXES, TEMPORARY
from vrtspike.storage.own_files import new_beside

UNFINISHED = ".unfinished.yaml"


def begin(root: Path, info: DatasetInfo) -> None:
    """Claim a folder for a dataset, or continue the same one; any other content is refused."""
    if root.exists() and not root.is_dir():
        raise DataFormatError("the output must be a folder", where=root, got="a file")
    for name in (INFO_FILE, UNFINISHED):
        if (root / name).is_file():
            if (have := read_info(root / name)) != info:
                raise DataFormatError(
                    "the folder holds another dataset",
                    where=root,
                    got=_difference(have, info),
                    fix="choose another folder, or remove this one",
                )
            return
    for leftover in root.glob(f"{TEMPORARY}*"):  # of a writer that was killed
        leftover.unlink()
    if names := sorted(path.name for path in root.glob("*")):
        raise DataFormatError(
            "the folder holds something else",
            where=root,
            got=f"{names[0]} and no {INFO_FILE}",
            fix="choose an empty or new folder",
        )
    root.mkdir(parents=True, exist_ok=True)
    write_info(root / UNFINISHED, info)


def finish(root: Path) -> None:
    """Declare a dataset complete."""
    if (root / UNFINISHED).exists():
        os.replace(root / UNFINISHED, root / INFO_FILE)


def is_written(root: Path, split: str, sequence: str) -> bool:
    """Tell whether a sequence is there, whole."""
    return (root / split / sequence).is_dir()


@contextmanager
def new_sequence(root: Path, split: str, sequence: str) -> Iterator[Path]:
    """Give a folder to write a sequence into, which then takes its place, unless it is taken."""
    target = root / split / sequence
    # Not named after the sequence, of which the name may be as long as the disk allows.
    prefix = f"{TEMPORARY}{hashlib.sha256(os.fsencode(sequence)).hexdigest()[:16]}-"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for leftover in target.parent.glob(f"{prefix}*"):  # of a writer that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        folder = new_beside(target.parent, prefix, Path.mkdir)
    except OSError as error:
        raise _cannot_write(target, error) from error
    try:
        yield folder
        os.rename(folder, target)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if target.is_dir():
            return
        if isinstance(error, OSError):
            raise _cannot_write(target, error) from error
        raise


def _cannot_write(target: Path, error: OSError) -> DataFormatError:
    """Return the error on a sequence that the disk does not take."""
    return DataFormatError(
        "cannot write the sequence",
        where=target,
        got=error.strerror or one_line(error),
        fix=FIXES.get(error.errno or 0),
    )


def _difference(have: DatasetInfo, want: DatasetInfo) -> str:
    """Name the first entry in which two descriptions differ."""
    for name, value in have.model_dump().items():
        if (other := getattr(want, name)) != getattr(have, name):
            return f"{name} {value} instead of {other}"
    return "the same"
