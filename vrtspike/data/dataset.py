"""Dataset folders: what they hold, and reading windows of their clips.

    <root>/dataset.yaml
    <root>/<split>/<sequence>/{blurred,sharp,spike}/<frame>.{png,png,dat}

`dataset.yaml` is a `DatasetInfo`. A frame has one file of each kind, of the same stem; its `.dat`
holds the `steps_per_frame` steps from the frame's start, `vrtspike.data.alignment` says which of
them expose it. `blur/` is accepted for `blurred/`, and other image formats for PNG. Nothing is
read until asked for; a clip is an index of names, small enough to send between processes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from jaxtyping import Bool, UInt8
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vrtspike.data.alignment import Timeline
from vrtspike.data.dat import SpikeStream, bytes_per_step
from vrtspike.errors import ConfigError, DataFormatError

FrameKind = Literal["blurred", "sharp"]
INFO_FILE = "dataset.yaml"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

Positive = Annotated[int, Field(gt=0)]


class _Record(BaseModel):
    """Refuse unknown keys and changes after construction."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SpikeInfo(_Record):
    """Geometry and physics of the spike camera."""

    height: Positive
    """Rows of the spike grid."""
    width: Positive
    """Columns of the spike grid."""
    bit_order: Literal["little", "big"] = "little"
    """Order of the pixels in a byte. Steps end on a byte where height x width % 8 is not 0."""
    flip: bool = True
    """Rows are stored bottom-up."""
    rate_hz: Annotated[float, Field(gt=0)]
    """Steps a second."""
    threshold: Annotated[float, Field(gt=0)]
    """Charge at which a pixel fires, in steps of full brightness."""


class FrameInfo(_Record):
    """Geometry of the frames."""

    height: Positive
    """Rows of a frame."""
    width: Positive
    """Columns of a frame."""


class DatasetInfo(_Record):
    """What `dataset.yaml` says of a dataset."""

    version: Literal[1] = 1
    """Version of the folder's format."""
    spike: SpikeInfo
    frame: FrameInfo
    steps_per_frame: Positive
    """Steps of each `.dat`, from one frame's start to the next one's."""
    exposure: tuple[int, int]
    """Half-open interval of the steps over which the blurred frame integrates."""
    target_step: int
    """Instant of the sharp frame (the border before the step of this number)."""
    source: str
    """Where the data come from."""

    @model_validator(mode="after")
    def _times_agree(self) -> DatasetInfo:
        try:
            _ = self.timeline
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def timeline(self) -> Timeline:
        """Return where exposure and target lie in the steps of a frame."""
        return Timeline(self.steps_per_frame, self.exposure, self.target_step)

    @property
    def spike_scale(self) -> int | None:
        """Return how many times coarser the spike grid is, or None where no integer says it."""
        (h, rest_h), (w, rest_w) = (
            divmod(self.frame.height, self.spike.height),
            divmod(self.frame.width, self.spike.width),
        )
        return h if h == w and h >= 1 and not rest_h and not rest_w else None


@dataclass(frozen=True)
class Clip:
    """The frames of one sequence, by name."""

    split: str
    sequence: str
    root: Path
    frames: tuple[str, ...]
    info: DatasetInfo

    @property
    def folder(self) -> Path:
        """Return the folder of the sequence."""
        return self.root / self.split / self.sequence

    def frame_path(self, kind: FrameKind, index: int) -> Path:
        """Return the image file of a frame."""
        folder = frame_folder(self.folder, kind)
        for suffix in IMAGE_SUFFIXES:
            path = folder / f"{self.frames[index]}{suffix}"
            if path.is_file():
                return path
        raise DataFormatError(f"no {kind} image of frame {self.frames[index]}", where=folder)

    def spike_path(self, index: int) -> Path:
        """Return the `.dat` file of a frame."""
        return self.folder / "spike" / f"{self.frames[index]}.dat"

    def spike_stream(self, index: int) -> SpikeStream:
        """Map the stream of a frame, checked against the dataset's geometry."""
        spike = self.info.spike
        return SpikeStream.open(
            self.spike_path(index),
            height=spike.height,
            width=spike.width,
            bit_order=spike.bit_order,
            flip=spike.flip,
            rate_hz=spike.rate_hz,
            threshold=spike.threshold,
            steps=self.info.steps_per_frame,
            pad_to_byte=True,
        )


@dataclass(frozen=True)
class Dataset:
    """A dataset folder that was opened: what it holds, by split."""

    root: Path
    info: DatasetInfo

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits, sorted."""
        return tuple(_folders(self.root))

    def sequences(self, split: str) -> tuple[str, ...]:
        """Return the names of a split's sequences, sorted; none is an error."""
        if split not in self.splits:
            raise DataFormatError(
                "no such split",
                where=self.root,
                got=split,
                expected=f"one of {', '.join(self.splits) or 'none'}",
                fix="correct the split's name or make the split",
            )
        names = tuple(_folders(self.root / split))
        if not names:
            raise DataFormatError(
                "the split is empty",
                where=self.root / split,
                expected="a folder for each sequence, with blurred/, sharp/ and spike/",
            )
        return names

    def clip(self, split: str, sequence: str) -> Clip:
        """Index one sequence; a frame that lacks a file of a kind, or a cut `.dat`, is an error."""
        return _index(self.root, split, sequence, self.info)

    def clips(self, split: str) -> tuple[Clip, ...]:
        """Index the sequences of a split, in order of their names."""
        return tuple(self.clip(split, sequence) for sequence in self.sequences(split))


def open_dataset(root: str | os.PathLike[str]) -> Dataset:
    """Open a dataset folder by its `dataset.yaml`."""
    root = Path(root)
    if not root.exists():
        raise DataFormatError(
            "no such dataset folder", where=root, fix="simulate it, or correct data.source"
        )
    if not root.is_dir():
        raise DataFormatError("a dataset must be a folder", where=root, got="a file")
    return Dataset(root, read_info(root / INFO_FILE))


def read_info(path: Path) -> DatasetInfo:
    """Read a `dataset.yaml`."""
    if not path.is_file():
        unfinished = any(path.parent.glob(".unfinished*"))
        raise DataFormatError(
            f"no {path.name}",
            where=path.parent,
            got="a simulation that was not finished" if unfinished else None,
            expected="a file that states geometry, exposure and target step",
            fix="run the same `vrtspike simulate` again" if unfinished else None,
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataFormatError("not readable as YAML", where=path, got=_one_line(error)) from error
    try:
        return DatasetInfo.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise DataFormatError(
            f"{key}: {first['msg']}", where=path, got=repr(first["input"])[:200]
        ) from error


def write_info(path: Path, info: DatasetInfo) -> None:
    """Write a `dataset.yaml`, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    text = yaml.safe_dump(info.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def read_frames(
    clip: Clip, kind: FrameKind, start: int = 0, stop: int | None = None
) -> UInt8[np.ndarray, "t h w 3"]:
    """Read the frames `[start, stop)` of a clip as RGB."""
    stop = _checked_stop(clip, start, stop)
    frame = clip.info.frame
    images = np.empty((stop - start, frame.height, frame.width, 3), np.uint8)
    for i in range(start, stop):
        path = clip.frame_path(kind, i)
        image = read_image(path)
        if image.shape[:2] != (frame.height, frame.width):
            raise DataFormatError(
                "the image has another size",
                where=path,
                got="{}x{}".format(*image.shape[:2]),
                expected=f"{frame.height}x{frame.width} (dataset.yaml)",
            )
        images[i - start] = image
    return images


def read_spikes(
    clip: Clip, start: int = 0, stop: int | None = None
) -> Bool[np.ndarray, "t s hs ws"]:
    """Read all steps of the frames `[start, stop)` of a clip."""
    stop = _checked_stop(clip, start, stop)
    return np.stack([clip.spike_stream(i)[:] for i in range(start, stop)])


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Read an 8-bit image file as RGB; gray is repeated, transparency and 16 bits are refused."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("RGB", "L", "P"):
                raise DataFormatError(
                    "unsupported kind of image", where=path, got=image.mode, expected="8-bit RGB"
                )
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise DataFormatError("not an image", where=path) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DataFormatError("unreadable image", where=path, got=_one_line(error)) from error


def frame_folder(sequence: Path, kind: FrameKind) -> Path:
    """Return the folder of a sequence's frames; `blur` stands in for a missing `blurred`."""
    folder = sequence / kind
    if kind == "blurred" and not folder.is_dir() and (sequence / "blur").is_dir():
        return sequence / "blur"
    return folder


def frame_names(sequence: Path) -> dict[str, set[str]]:
    """Return the stems of a sequence's files for `blurred`, `sharp` and `spike`."""
    folders = {
        "blurred": (frame_folder(sequence, "blurred"), IMAGE_SUFFIXES),
        "sharp": (frame_folder(sequence, "sharp"), IMAGE_SUFFIXES),
        "spike": (sequence / "spike", (".dat",)),
    }
    names = {}
    for kind, (folder, suffixes) in folders.items():
        if not folder.is_dir():
            raise DataFormatError(
                f"no folder {kind}/",
                where=sequence,
                fix="deblurring is trained and measured on true sharp frames only"
                if kind == "sharp"
                else None,
            )
        files = [f for f in folder.iterdir() if not f.name.startswith(".")]
        names[kind] = {f.stem for f in files if f.suffix.lower() in suffixes}
    return names


def _index(root: Path, split: str, sequence: str, info: DatasetInfo) -> Clip:
    """Index a sequence by its file names and the sizes of its streams."""
    folder = root / split / sequence
    names = frame_names(folder)
    every = set[str]().union(*names.values())
    if not every:
        raise DataFormatError("the sequence holds no frame", where=folder)
    for kind, have in names.items():
        if have != every:
            missing = sorted(every - have)
            raise DataFormatError(
                f"frames without {kind}",
                where=folder,
                got=f"{len(have)} of {len(every)}, missing {', '.join(missing[:3])}"
                + (", ..." if len(missing) > 3 else ""),
                expected="the same frames in blurred/, sharp/ and spike/",
            )
    clip = Clip(split, sequence, root, tuple(sorted(every)), info)
    size = info.steps_per_frame * bytes_per_step(info.spike.height, info.spike.width)
    for i in range(len(clip.frames)):
        if clip.spike_path(i).stat().st_size != size:
            clip.spike_stream(i)
    return clip


def _folders(folder: Path) -> list[str]:
    """Return the sorted names of the visible folders in a folder."""
    return sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _checked_stop(clip: Clip, start: int, stop: int | None) -> int:
    """Return the end of a range of frames, or refuse a range that is empty or leaves the clip."""
    stop = len(clip.frames) if stop is None else stop
    if not 0 <= start < stop <= len(clip.frames):
        raise DataFormatError(
            "no such frames",
            where=clip.folder,
            got=f"[{start}, {stop})",
            expected=f"a part of [0, {len(clip.frames)})",
        )
    return stop


def _one_line(error: Exception) -> str:
    """Return an exception's message on one line."""
    return " ".join(str(error).split())[:200]
