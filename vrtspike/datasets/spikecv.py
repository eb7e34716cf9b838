"""Dataset folders of SpikeCV: their `config.yaml`, and the streams that it describes.

In: a folder with a `config.yaml`. Out: what it says (`SpikeCVInfo`), and its `.dat` streams. Of
time and threshold the file says nothing; who opens a stream gives them.

`filename` names one `.dat` of the folder, or is a pattern (`*`, `?`, `[`); without it all `.dat`
files are streams. Where `data_field_identifier` is given the streams lie in that subfolder. Other
keys, as those of labels, are passed over.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vrtspike.errors import DataFormatError
from vrtspike.spikes.source import file_size, unreadable
from vrtspike.spikes.stream import SpikeStream
from vrtspike.storage.names import fault_of_path
from vrtspike.storage.record import first_fault
from vrtspike.storage.yaml_text import parse_yaml

CONFIG_FILE = "config.yaml"
ALL_STREAMS = "*.dat"
Positive = Annotated[int, Field(gt=0, strict=True)]
Name = Annotated[str, Field(min_length=1, strict=True)]


class SpikeCVInfo(BaseModel):
    """What `config.yaml` says of a dataset."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    folder: Path
    """Where the file lies."""
    filename: Name | None = None
    """One `.dat`, or a pattern; all of them if not given."""
    spike_w: Positive
    """Columns of the spike grid."""
    spike_h: Positive
    """Rows of the spike grid."""
    is_labeled: Annotated[bool, Field(strict=True)]
    """Whether there are labels beside the streams."""
    data_field_identifier: Name | None = None
    """Subfolder of the streams."""

    @field_validator("filename", "data_field_identifier")
    @classmethod
    def _stays_in_the_folder(cls, value: str | None) -> str | None:
        if value not in (None, ".", "./") and (fault := fault_of_path(value)):
            raise ValueError(f"a name within the dataset's folder is expected, but {fault}")
        return value

    def names(self, path: PurePosixPath) -> bool:
        """Tell whether a file, by its path below the folder, is one of the streams."""
        *folders, name = self._pattern.parts
        if list(path.parts[:-1]) != folders:
            return False
        if not set(name) & set("*?["):
            return path.name == name
        hidden = path.name.startswith(".")
        return path.suffix.lower() == ".dat" and not hidden and fnmatchcase(path.name, name)

    def stream_paths(self) -> tuple[Path, ...]:
        """Return the `.dat` files, sorted; none is an error."""
        folder = self.folder / (self.data_field_identifier or "")
        if not folder.is_dir():
            raise DataFormatError(
                "no folder of streams",
                where=folder,
                expected=f"the folder that {CONFIG_FILE} calls data_field_identifier",
            )
        inner = self.folder / self._pattern.parent
        files = (file for file in (inner.iterdir() if inner.is_dir() else ()) if file.is_file())
        paths = [
            file
            for file in sorted(files)
            if self.names(PurePosixPath(file.relative_to(self.folder).as_posix()))
        ]
        if not paths:
            raise DataFormatError(
                "the dataset holds no stream",
                where=folder,
                expected=self.filename or ALL_STREAMS,
                fix=f"correct filename or data_field_identifier in {CONFIG_FILE}",
            )
        return tuple(paths)

    @property
    def _pattern(self) -> PurePosixPath:
        """Return the name, or the pattern, of the streams below the folder."""
        return PurePosixPath(self.data_field_identifier or "", self.filename or ALL_STREAMS)

    def open(self, path: Path, *, threshold: float | None = None) -> SpikeStream:
        """Open one of the streams with the dataset's geometry."""
        return SpikeStream.open(path, height=self.spike_h, width=self.spike_w, threshold=threshold)


def read_spikecv(folder: str | os.PathLike[str]) -> SpikeCVInfo:
    """Read the `config.yaml` of a dataset folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataFormatError("a SpikeCV dataset must be a folder", where=folder)
    path = folder / CONFIG_FILE
    file_size(path, CONFIG_FILE)
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise unreadable(path, error, CONFIG_FILE) from error
    if not isinstance(values, dict) or "folder" in values:
        raise DataFormatError(
            "not the configuration of a dataset",
            where=path,
            got=type(values).__name__,
            expected="keys spike_w, spike_h, is_labeled, ...",
        )
    try:
        return SpikeCVInfo.model_validate({**values, "folder": folder})
    except ValidationError as error:
        key, first = first_fault(error)
        missing = first["type"] == "missing"
        raise DataFormatError(
            f"{key}: {'the key is missing' if missing else first['msg']}",
            where=path,
            got=None if missing else repr(first["input"])[:200],
            expected="spike_w, spike_h (pixels) and is_labeled (true or false)"
            if missing
            else None,
        ) from error
