"""What a dataset says of itself: `dataset.yaml`, and `sequence.yaml` where a sequence differs.

    version: 1
    spike: {height: 360, width: 640, rate_hz: 1920, threshold: 2}
    frame: {height: 720, width: 1280}
    steps_per_frame: 64
    exposure: [0, 56]
    target_step: 28
    source: where the data come from

Times are steps of the spike camera, as `vrtspike.spikes.timeline` counts them. A dataset without
a spike camera leaves `spike` and the times out. A `sequence.yaml` in a sequence's folder holds
those entries that are other ones there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from vrtspike.config.section import Positive
from vrtspike.errors import ConfigError, DataFormatError, one_line
from vrtspike.spikes.packed_file import bytes_per_step
from vrtspike.spikes.registration import Crop, Homography, Registration
from vrtspike.spikes.timeline import Timeline
from vrtspike.storage.atomic import write_atomically
from vrtspike.storage.record import Record, first_fault
from vrtspike.storage.yaml_text import parse_yaml

INFO_FILE = "dataset.yaml"
SEQUENCE_FILE = "sequence.yaml"

PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SpikeInfo(Record):
    """Geometry and physics of the spike camera."""

    height: Positive
    """Rows of the stored spike grid."""
    width: Positive
    """Columns of the stored spike grid."""
    bit_order: Literal["little", "big"] = "little"
    """Order of the pixels in a byte. Steps end on a byte where height x width % 8 is not 0."""
    flip: bool = True
    """Rows are stored bottom-up."""
    rate_hz: PositiveNumber
    """Steps a second."""
    threshold: PositiveNumber
    """Charge at which a pixel fires, in steps of full brightness."""
    color: Literal["gray", "bayer"] = "gray"
    """What a pixel sees: luma, or one channel of an RGGB mosaic."""
    light: Literal["gamma", "linear"] = "gamma"
    """What a pixel integrates: the gamma-encoded value, as published datasets have it, or light."""
    time_offset_steps: int = 0
    """Steps by which the stream runs late: a frame's first step is this many steps further on."""
    registration: Registration | None = None
    """Where the frames' picture lies on the sensor; none: they show the same."""

    @model_validator(mode="after")
    def _crop_fits(self) -> SpikeInfo:
        if isinstance(self.registration, Crop):
            try:
                self.registration.check(self.height, self.width)
            except DataFormatError as error:
                raise ValueError(str(error)) from error
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of the spikes as they are read, registered to the frames."""
        return self.registration.grid if self.registration else (self.height, self.width)

    @property
    def step_bytes(self) -> int:
        """Return the bytes of one stored step."""
        return bytes_per_step(self.height, self.width)


class FrameInfo(Record):
    """Geometry of the frames."""

    height: Positive
    """Rows of a frame."""
    width: Positive
    """Columns of a frame."""


class DatasetInfo(Record):
    """What is known of a dataset, or of one sequence of it."""

    version: Literal[1] = 1
    """Version of the folder's format."""
    spike: SpikeInfo | None = None
    """The spike camera; none: frames only."""
    frame: FrameInfo
    steps_per_frame: Positive | None = None
    """Steps of a frame's own stretch of the stream."""
    exposure: tuple[int, int] | None = None
    """Half-open interval of the steps over which the blurred frame integrates."""
    target_step: int | None = None
    """Instant of the sharp frame (the border before the step of this number)."""
    continuous: bool = True
    """The stretches of consecutive frames follow one another without a gap or an overlap."""
    source: str
    """Where the data come from."""

    @model_validator(mode="after")
    def _times_agree(self) -> DatasetInfo:
        times = {
            "steps_per_frame": self.steps_per_frame,
            "exposure": self.exposure,
            "target_step": self.target_step,
        }
        for name, value in times.items():
            if value is None and self.spike is not None:
                raise ValueError(f"a spike camera needs {name}")
            if value is not None and self.spike is None:
                raise ValueError(f"{name} is given, but no spike camera")
        if self.spike is not None:
            self._registration_covers_the_frame(self.spike)
            try:
                _ = self.timeline
            except ConfigError as error:
                raise ValueError(str(error)) from error
        return self

    def _registration_covers_the_frame(self, spike: SpikeInfo) -> None:
        if isinstance(spike.registration, Homography):
            scale, (rows, columns) = spike.registration.scale, spike.grid
            height, width = self.frame.height, self.frame.width
            if abs(rows * scale - height) >= scale or abs(columns * scale - width) >= scale:
                raise ValueError(
                    f"spike.registration covers {rows * scale:g}x{columns * scale:g} pixels of "
                    f"frames of {height}x{width}"
                )

    @property
    def camera(self) -> SpikeInfo:
        """Return the spike camera; a dataset without one is a DataFormatError."""
        if self.spike is None:
            raise DataFormatError("the dataset has no spikes", got=self.source[:100])
        return self.spike

    @property
    def timeline(self) -> Timeline:
        """Return where exposure and target lie in the steps of a frame."""
        if self.steps_per_frame is None or self.exposure is None or self.target_step is None:
            raise DataFormatError("the dataset has no spikes", got=self.source[:100])
        return Timeline(self.steps_per_frame, self.exposure, self.target_step)

    @property
    def spike_scale(self) -> int | None:
        """Return how many times coarser the spike grid is, or None where no integer says it."""
        if self.spike is None:
            return None
        height, width = self.spike.grid
        (h, rest_h), (w, rest_w) = (
            divmod(self.frame.height, height),
            divmod(self.frame.width, width),
        )
        return h if h == w and h >= 1 and not rest_h and not rest_w else None


def check_geometry(info: DatasetInfo, where: object) -> None:
    """Refuse spikes on a grid that no integer says how to lay over the frames."""
    if info.spike is None or info.spike_scale is not None:
        return
    (rows, columns), frame = info.spike.grid, info.frame
    turned = info.model_copy(
        update={"frame": FrameInfo(height=frame.width, width=frame.height)}
    ).spike_scale
    raise DataFormatError(
        "the spike grid is no whole number of times coarser than the frames",
        where=where,
        got=f"spikes of {rows}x{columns} and frames of {frame.height}x{frame.width}",
        expected="one whole number for rows and columns",
        fix="exchange the height and width of the spike camera"
        if turned
        else "state a registration (crop or homography) that says what of the sensor the frames "
        "show, or correct the height and width",
    )


def read_info(path: Path) -> DatasetInfo:
    """Read a `dataset.yaml`."""
    if not path.is_file():
        raise no_info(path.parent, any(path.parent.glob(".unfinished*")))
    return parse_info(_read(path), str(path))


def no_info(folder: object, unfinished: bool = False, fix: str | None = None) -> DataFormatError:
    """Say that a folder has no `dataset.yaml`."""
    return DataFormatError(
        f"no {INFO_FILE}",
        where=folder,
        got="a simulation that was not finished" if unfinished else None,
        expected="a file that states geometry, exposure and target step",
        fix="run the same `vrtspike simulate` again" if unfinished else fix,
    )


def parse_info(text: bytes, where: str, changes: tuple[bytes, str] | None = None) -> DatasetInfo:
    """Parse a `dataset.yaml` and, if given, the `sequence.yaml` (text and name) that changes it."""
    values = _mapping(text, where)
    if changes is not None:
        where = changes[1]
        values = _merged(values, _mapping(*changes))
    try:
        return DatasetInfo.model_validate(values)
    except ValidationError as error:
        key, first = first_fault(error)
        raise DataFormatError(
            f"{key}: {first['msg']}", where=where, got=repr(first["input"])[:200]
        ) from error


def write_info(path: Path, info: DatasetInfo) -> None:
    """Write a `dataset.yaml`, whole or not at all; what is not there is not named."""
    values = info.model_dump(mode="json", exclude_none=True)
    _write_yaml(path, values)


def write_changes(path: Path, info: DatasetInfo, dataset: DatasetInfo) -> None:
    """Write a `sequence.yaml` with what is other in a sequence; nothing, where all is equal."""
    have, usual = (i.model_dump(mode="json", exclude_none=True) for i in (info, dataset))
    if changes := _difference(have, usual):
        _write_yaml(path, changes)


def _write_yaml(path: Path, values: dict[str, Any]) -> None:
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    write_atomically(path, text.encode())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataFormatError("cannot read the file", where=path, got=error.strerror) from error


def _mapping(text: bytes, where: str) -> dict[str, Any]:
    """Parse YAML that must be a mapping."""
    try:
        values = parse_yaml(text.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataFormatError(
            "not readable as YAML", where=where, got=one_line(error, 200)
        ) from error
    if not isinstance(values, dict):
        raise DataFormatError(
            "the file holds no entries", where=where, got=repr(values)[:200], expected="key: value"
        )
    return values


def _merged(usual: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return nested entries with some of them changed."""
    merged = dict(usual)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            value = _merged(old, value)
        merged[key] = value
    return merged


def _difference(have: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that change `usual` into `have`."""
    changes: dict[str, Any] = {}
    for key, value in have.items():
        old = usual.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            if inner := _difference(value, old):
                changes[key] = inner
        elif value != old:
            changes[key] = value
    return changes | {key: None for key in usual.keys() - have.keys()}
