"""Prepared shards: Parquet files of fixed-shape samples, and the manifest that vouches for them.

    <shards>/<split>/<nnnnn>.parquet   one row = one sample = one row group, not compressed
    <shards>/<split>/<nnnnn>.json      what the file was made from, its size and SHA-256
    <shards>/manifest.json             written last: without it nothing here is whole

Columns: sample (`sequence/start[/top_left]`), sequence, start (frame), blurred and sharp (uint8
(t, h, w, 3), C order), spikes (bits of (t, s, hs, ws) packed along ws, least significant first, so
(t, s, hs, ceil(ws / 8)) bytes; all steps of the .dat, the exposure is in `info`). Split, so that a
crop unpacks only the bytes it needs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from vrtspike.data.dataset import DatasetInfo
from vrtspike.errors import DataFormatError

VERSION = 1
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


class Record(BaseModel):
    """Refuse unknown keys and changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Shape(Record):
    """Sizes that all samples of a split share: frames, pixels, spike steps and spike pixels."""

    t: int
    h: int
    w: int
    s: int
    hs: int
    ws: int


class ShardFile(Record):
    """One Parquet file, relative to the shards' folder."""

    file: str
    rows: int
    bytes: int
    sha256: str


class SampleRef(Record):
    """Where a sample lies: the number of its shard in the split, and its row."""

    id: str
    shard: int
    row: int


class Split(Record):
    """All samples of a split, in order."""

    shape: Shape
    shards: tuple[ShardFile, ...]
    samples: tuple[SampleRef, ...]


class Refusal(Record):
    """A sequence that could not be prepared, and why."""

    sequence: str
    reason: str


class PrepareSettings(Record):
    """The settings that decide what is in the shards."""

    frames: int
    stride: int
    tile: int | None
    shard_samples: int
    splits: tuple[str, ...]


class Manifest(Record):
    """What a folder of shards holds."""

    version: int
    settings: PrepareSettings
    inputs: str
    """SHA-256 over the settings and the names, sizes and times of all source files."""
    fingerprint: str
    """SHA-256 over the settings and the content of all shards."""
    info: DatasetInfo
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

    def spike_bits(self, steps: slice, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """Unpack the spikes of a window: (t, steps, rows, columns)."""
        first = columns.start // 8
        packed = self.spikes[:, steps, rows, first : -(-columns.stop // 8)]
        bits = np.unpackbits(packed, axis=-1, bitorder="little").view(np.bool_)
        return bits[..., columns.start - 8 * first : columns.stop - 8 * first]


def pack_spikes(spikes: NDArray[np.bool_]) -> Bytes:
    """Pack bits (..., ws) into bytes (..., ceil(ws / 8))."""
    return np.packbits(spikes, axis=-1, bitorder="little")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(content: Any) -> str:
    """Return the SHA-256 of something that JSON can hold."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def encode_shard(rows: Sequence[dict[str, Any]]) -> bytes:
    """Return the Parquet file of some samples; equal samples give equal bytes."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink, SCHEMA, compression="none", use_dictionary=False, write_statistics=False
    ) as writer:
        for row in rows:
            writer.write_table(pa.Table.from_pylist([row], schema=SCHEMA))
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_manifest(shards: Path) -> Manifest:
    """Read the manifest of a folder of shards, and check it against the files there."""
    path = shards / MANIFEST
    if not path.is_file():
        raise DataFormatError(
            "no prepared shards", where=shards, expected=MANIFEST, fix="run `vrtspike prepare`"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        version = found.get("version") if isinstance(found, dict) else None
        if version != VERSION:
            raise DataFormatError(
                "the shards are of another version",
                where=path,
                got=version,
                expected=VERSION,
                fix="delete the folder and run `vrtspike prepare`",
            )
        manifest = Manifest.model_validate(found)
    except (ValueError, ValidationError) as error:
        problem = " ".join(str(error).split())[:200]
        raise DataFormatError(f"the manifest cannot be read: {problem}", where=path) from None
    for split in manifest.splits.values():
        for shard in split.shards:
            file = shards / shard.file
            size = file.stat().st_size if file.is_file() else None
            if size != shard.bytes:
                raise DataFormatError(
                    "a shard is not what the manifest says",
                    where=file,
                    got="no file" if size is None else f"{size} bytes",
                    expected=f"{shard.bytes} bytes",
                    fix="run `vrtspike prepare` again",
                )
    return manifest


def split_of(manifest: Manifest, name: str, where: Path) -> Split:
    """Return a split of the manifest, or say which there are."""
    if name not in manifest.splits:
        raise DataFormatError(
            f"the shards have no split {name!r}",
            where=where,
            expected=f"one of {', '.join(manifest.splits)}",
            fix="set data.train_split and data.val_split, then run `vrtspike prepare`",
        )
    return manifest.splits[name]


def read_sample(shards: Path, split: Split, index: int, *, spikes: bool = True) -> Sample:
    """Read one sample; without `spikes` their bytes are not read and have no steps."""
    ref, shape = split.samples[index], split.shape
    path = shards / split.shards[ref.shard].file
    columns = ["sample", "blurred", "sharp", *(["spikes"] if spikes else [])]
    try:
        table = _open_shard(path).read_row_group(ref.row, columns=columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        _open_shard.cache_clear()
        raise DataFormatError(
            f"cannot read a sample: {error}", where=f"{path}, row {ref.row}"
        ) from None
    if table["sample"][0].as_py() != ref.id:
        raise DataFormatError(
            "a shard holds another sample than the manifest says",
            where=f"{path}, row {ref.row}",
            got=table["sample"][0].as_py(),
            expected=ref.id,
            fix="run `vrtspike prepare` again",
        )
    frames = (shape.t, shape.h, shape.w, 3)
    packed = (shape.t, shape.s if spikes else 0, shape.hs, -(-shape.ws // 8))
    return Sample(
        id=ref.id,
        blurred=_bytes_of(table, "blurred", frames),
        sharp=_bytes_of(table, "sharp", frames),
        spikes=_bytes_of(table, "spikes", packed) if spikes else np.zeros(packed, np.uint8),
        spike_width=shape.ws,
    )


@lru_cache(maxsize=64)
def _open_shard(path: Path) -> pq.ParquetFile:
    """Keep files open: a footer is read once."""
    return pq.ParquetFile(path, memory_map=True)


def _bytes_of(table: pa.Table, column: str, shape: tuple[int, ...]) -> Bytes:
    """View a binary cell as an array without copying it."""
    return np.frombuffer(table[column][0].as_buffer(), np.uint8).reshape(shape)
