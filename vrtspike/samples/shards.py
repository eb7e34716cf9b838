"""The format of prepared shards: Parquet files of fixed-shape samples, and their manifest.

    <shards>/<split>/<nnnnn>.parquet   one row = one sample = one row group, not compressed
    <shards>/<split>/<nnnnn>.json      a note: the inputs of the file, its size and SHA-256
    <shards>/manifest.json             written last: without it the shards are incomplete

Columns: sample (`sequence/start[/top_left]`), sequence, start (frame), blurred and sharp (uint8
(t, h, w, 3), C order), and spikes: bits of (t, s, hs, ws) packed along ws, least significant first,
so (t, s, hs, ceil(ws / 8)) bytes. A crop unpacks only the bytes that it needs. The spikes are of
all steps of a frame; the timeline of the shard in the manifest says which steps are exposed. They
are empty if there is no spike camera. The folder may be in an object store
(`vrtspike.storage.folder`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from vrtspike.config.choices import LayoutName
from vrtspike.config.section import PlainPath
from vrtspike.datasets.info import DatasetInfo
from vrtspike.errors import DataFormatError, one_line
from vrtspike.spikes.timeline import Timeline
from vrtspike.storage.folder import Folder
from vrtspike.storage.json_text import parse_json
from vrtspike.storage.record import Record

VERSION = 2
MANIFEST = "manifest.json"
SCHEMA = pa.schema(
    [
        ("sample", pa.string()),
        ("sequence", pa.string()),
        ("start", pa.int32()),
        ("blurred", pa.binary()),
        ("sharp", pa.binary()),
        ("spikes", pa.binary()),
    ]
)

Bytes = NDArray[np.uint8]


class Shape(Record):
    """Size of all samples of a split: frames, pixels, and spike pixels (0: no spikes)."""

    t: int
    h: int
    w: int
    hs: int
    ws: int


class ShardFile(Record):
    """One Parquet file, relative to the folder of shards, with samples of one sequence."""

    file: PlainPath
    rows: int
    bytes: int
    sha256: str
    timeline: Timeline | None
    """Exposure and target in the steps of each frame; None without a spike camera."""
    threshold: float | None
    """Charge at which its camera fires; None without a spike camera."""


class SampleRef(Record):
    """The position of a sample: the index of its shard in the split, and its row."""

    id: str
    shard: int
    row: int


class Split(Record):
    """All samples of a split, in order."""

    shape: Shape
    shards: tuple[ShardFile, ...]
    samples: tuple[SampleRef, ...]

    def timeline(self, index: int) -> Timeline:
        """Return the timeline of a sample's frames."""
        timeline = self.shards[self.samples[index].shard].timeline
        if timeline is None:
            raise DataFormatError("the shards hold no spikes", where=self.samples[index].id)
        return timeline

    def threshold(self, index: int) -> float:
        """Return the threshold of a sample's spike camera."""
        threshold = self.shards[self.samples[index].shard].threshold
        assert threshold is not None
        return threshold


class Refusal(Record):
    """A sequence that could not be prepared, and why."""

    sequence: str
    reason: str


class PrepareSettings(Record):
    """The settings on which the content of the shards depends."""

    layout: LayoutName
    frames: int
    stride: int
    tile: int | None
    shard_samples: int
    splits: tuple[str, ...]


class Manifest(Record):
    """The content of a folder of shards: settings, splits and refused sequences."""

    version: int
    source: str
    """The dataset folder."""
    settings: PrepareSettings
    inputs: str
    """SHA-256 of the settings and of the names, sizes and times of all source files."""
    fingerprint: str
    """SHA-256 of the settings and of the content of all shards."""
    info: DatasetInfo
    """Description of the first sequence; others may differ in timeline and threshold."""
    splits: dict[str, Split]
    refused: tuple[Refusal, ...]


@dataclass(frozen=True)
class Sample:
    """One sample: frames uint8 (t, h, w, 3), spikes packed uint8 (t, s, hs, ceil(ws / 8))."""

    id: str
    blurred: Bytes
    sharp: Bytes
    spikes: Bytes
    spike_width: int

    def spike_bits(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """Unpack the spikes of a part of the picture, (t, s, rows, columns)."""
        first = columns.start // 8
        packed = self.spikes[:, :, rows, first : -(-columns.stop // 8)]
        # Flattened, because along an axis NumPy unpacks row by row.
        flat = np.unpackbits(np.ascontiguousarray(packed).reshape(-1), bitorder="little")
        bits = flat.reshape(*packed.shape[:-1], 8 * packed.shape[-1]).view(np.bool_)
        return bits[..., columns.start - 8 * first : columns.stop - 8 * first]


def pack_spikes(spikes: NDArray[np.bool_]) -> Bytes:
    """Pack bits (..., ws) into bytes (..., ceil(ws / 8))."""
    return np.packbits(spikes, axis=-1, bitorder="little")


def digest(content: Any) -> str:
    """Return the SHA-256 of a JSON value, in hexadecimal."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def encode_shard(rows: Iterable[dict[str, Any]]) -> bytes:
    """Return the Parquet file of these rows as bytes; equal rows give equal bytes."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink, SCHEMA, compression="none", use_dictionary=False, write_statistics=False
    ) as writer:
        for row in rows:
            writer.write_table(pa.Table.from_pylist([row], schema=SCHEMA))
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_manifest(shards: Folder | str | os.PathLike[str]) -> Manifest:
    """Read the manifest of a folder of shards, and compare it with the files.

    Raise DataFormatError if the manifest is missing or invalid, or if files do not match it.
    """
    folder = shards if isinstance(shards, Folder) else Folder.at(shards)
    if folder.size(MANIFEST) is None:
        raise DataFormatError(
            "no prepared shards", where=folder, expected=MANIFEST, fix="run `vrtspike prepare`"
        )
    where = folder.name(MANIFEST)
    try:
        content = parse_json(folder.read(MANIFEST))
        version = content.get("version") if isinstance(content, dict) else None
        if version != VERSION:
            raise DataFormatError(
                "the shards are of another version",
                where=where,
                got=version,
                expected=VERSION,
                fix="delete the folder and run `vrtspike prepare`",
            )
        manifest = Manifest.model_validate(content)
    except (ValueError, ValidationError) as error:
        problem = one_line(error, 200)
        raise DataFormatError(f"the manifest cannot be read: {problem}", where=where) from None
    have = folder.listing()
    for split in manifest.splits.values():
        for shard in split.shards:
            size = have[shard.file].size if shard.file in have else None
            if size != shard.bytes:
                raise DataFormatError(
                    "a shard is not what the manifest says",
                    where=folder.name(shard.file),
                    got="no file" if size is None else f"{size} bytes",
                    expected=f"{shard.bytes} bytes",
                    fix="run `vrtspike prepare` again",
                )
    return manifest


def split_of(manifest: Manifest, name: str, where: object) -> Split:
    """Return a split of the manifest; raise an error that lists the splits if it has none."""
    if name not in manifest.splits:
        raise DataFormatError(
            f"the shards have no split {name!r}",
            where=where,
            expected=f"one of {', '.join(manifest.splits)}",
            fix="set data.train_split and data.val_split, then run `vrtspike prepare`",
        )
    return manifest.splits[name]


def read_sample(shards: str, split: Split, index: int, *, spikes: bool = True) -> Sample:
    """Read one sample; if `spikes` is false, do not read spikes, and return none (0 steps)."""
    ref, shape = split.samples[index], split.shape
    file = split.shards[ref.shard].file
    where = f"{Folder.at(shards).name(file)}, row {ref.row}"
    columns = ["sample", "blurred", "sharp", *(["spikes"] if spikes else [])]
    try:
        table = _open_shard(shards, file).read_row_group(ref.row, columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        _open_shard.cache_clear()
        raise DataFormatError(f"cannot read a sample: {error}", where=where) from None
    if table["sample"][0].as_py() != ref.id:
        raise DataFormatError(
            "a shard holds another sample than the manifest says",
            where=where,
            got=table["sample"][0].as_py(),
            expected=ref.id,
            fix="run `vrtspike prepare` again",
        )
    frames = (shape.t, shape.h, shape.w, 3)
    steps = split.timeline(index).steps_per_frame if spikes else 0
    packed = (shape.t, steps, shape.hs, -(-shape.ws // 8))
    return Sample(
        id=ref.id,
        blurred=_bytes_of(table, "blurred", frames),
        sharp=_bytes_of(table, "sharp", frames),
        spikes=_bytes_of(table, "spikes", packed) if spikes else np.zeros(packed, np.uint8),
        spike_width=shape.ws,
    )


@lru_cache(maxsize=64)
def _open_shard(shards: str, file: str) -> pq.ParquetFile:
    """Open a shard, and cache it, so that its footer is read once.

    Refuse columns of unexpected types, because Arrow may run Python code for some types: Ray's
    object type unpickles its values.
    """
    opened = pq.ParquetFile(Folder.at(shards).open(file))
    if not opened.schema_arrow.equals(SCHEMA, check_metadata=False):
        raise DataFormatError(
            "a shard has other columns than shards have",
            where=Folder.at(shards).name(file),
            got=one_line(opened.schema_arrow.remove_metadata(), 200),
            expected=one_line(SCHEMA, 200),
            fix="run `vrtspike prepare` again",
        )
    return opened


def _bytes_of(table: pa.Table, column: str, shape: tuple[int, ...]) -> Bytes:
    """Return a binary cell as an array of this shape, without a copy."""
    cell = table[column].chunk(0)
    _, offsets, values = cell.buffers()
    first, stop = np.frombuffer(offsets, np.int32)[cell.offset : cell.offset + 2].tolist()
    return np.frombuffer(values, np.uint8, stop - first, first).reshape(shape)
