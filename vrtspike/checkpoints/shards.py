"""The file of one rank in a checkpoint: safetensors, with the position of each slice in its tensor.

    8 bytes       length of the header (little endian)
    header        JSON: name -> dtype, shape, data_offsets; `__metadata__` -> DCP_SHARDING_INFO,
                  itself JSON: name -> saved_offsets, where the slice starts in the whole tensor
    data          the slices, without gaps

PyTorch's distributed checkpoint writes the same format, so its `HuggingFaceStorageReader` can read
a checkpoint, and any safetensors reader can read each file. Nothing is pickled, so reading a file
never runs code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import ReadItem

from vrtspike.checkpoints.snapshot import TensorSlice
from vrtspike.errors import CheckpointError
from vrtspike.storage.folder import Folder

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
BLOCK_BYTES = 1 << 22


def file_name(rank: int) -> str:
    """Return the name of a rank's file."""
    return f"rank_{rank:05d}.safetensors"


def shard_header(pieces: Sequence[TensorSlice]) -> bytes:
    """Return the first bytes of a file: the length of the header, and the header."""
    places = {piece.key: {"saved_offsets": piece.offsets} for piece in pieces}
    header: dict[str, Any] = {
        "__metadata__": {
            "format": "pt",
            "DCP_VERSION": "1.0",
            "DCP_SHARDING_INFO": json.dumps(places, separators=(",", ":")),
        }
    }
    at = 0
    for piece in pieces:
        end = at + piece.end - piece.begin
        header[piece.key] = {
            "dtype": NAMES[piece.dtype],
            "shape": piece.sizes,
            "data_offsets": (at, end),
        }
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def shard_data(pieces: Sequence[TensorSlice], memory: memoryview) -> Iterator[memoryview]:
    """Yield the bytes of slices, in blocks of at most `BLOCK_BYTES` that may span slices."""
    begin = end = 0
    for piece in pieces:
        if piece.begin != end:
            yield from _blocks(memory[begin:end])
            begin = piece.begin
        end = piece.end
    yield from _blocks(memory[begin:end])


def _blocks(data: memoryview) -> Iterator[memoryview]:
    for begin in range(0, len(data), BLOCK_BYTES):
        yield data[begin : begin + BLOCK_BYTES]


@dataclass(frozen=True)
class SliceInTensor:
    """Where a slice of a tensor is stored: bytes [begin, end) of a file."""

    file: str
    begin: int
    end: int
    dtype: torch.dtype
    shape: tuple[int, ...]


def read_headers(folder: Folder, files: Sequence[str]) -> tuple[Metadata, dict[Any, SliceInTensor]]:
    """Read the headers of files: DCP's metadata of all tensors, and where each slice is stored.

    The second result is keyed by DCP's `MetadataIndex`. Raises CheckpointError if a header is
    unreadable.
    """
    tensors: dict[str, TensorStorageMetadata] = {}
    places: dict[Any, SliceInTensor] = {}
    for file in files:
        try:
            with folder.open(file) as source:
                start = 8 + struct.unpack("<Q", source.read(8))[0]
                header = json.loads(source.read(start - 8))
            offsets = json.loads(header.pop("__metadata__")["DCP_SHARDING_INFO"])
            for key, entry in header.items():
                at = torch.Size(offsets[key]["saved_offsets"])
                begin, end = entry["data_offsets"]
                shape, dtype = tuple(entry["shape"]), DTYPES[entry["dtype"]]
                places[MetadataIndex(key, at)] = SliceInTensor(
                    file, start + begin, start + end, dtype, shape
                )
                _add_part(tensors, key, dtype, at, torch.Size(shape))
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise CheckpointError(f"unreadable {file}: {error!r}", where=folder) from None
    return Metadata(dict(tensors)), places


def _add_part(
    tensors: dict[str, TensorStorageMetadata],
    key: str,
    dtype: torch.dtype,
    offsets: torch.Size,
    sizes: torch.Size,
) -> None:
    """Add a slice to the metadata of its tensor; the tensor's size is where its slices end."""
    tensor = tensors.setdefault(
        key, TensorStorageMetadata(TensorProperties(dtype=dtype), sizes, [])
    )
    tensor.chunks.append(ChunkStorageMetadata(offsets, sizes))
    ends = [begin + size for begin, size in zip(offsets, sizes, strict=True)]
    tensor.size = torch.Size(max(pair) for pair in zip(tensor.size, ends, strict=True))


def read_parts(
    folder: Folder, items: Sequence[ReadItem], places: dict[Any, SliceInTensor]
) -> Iterator[tuple[ReadItem, Tensor]]:
    """Yield each item with its tensor; one read from each file covers all items in it."""
    by_file: dict[str, list[ReadItem]] = {}
    for item in items:
        by_file.setdefault(places[item.storage_index].file, []).append(item)
    for file, items_of_file in by_file.items():
        first = min(places[item.storage_index].begin for item in items_of_file)
        last = max(places[item.storage_index].end for item in items_of_file)
        stretch = _read_stretch(folder, file, first, last)
        for item in items_of_file:
            place = places[item.storage_index]
            flat = stretch[place.begin - first : place.end - first]
            whole = flat.view(place.dtype).view(place.shape)
            box = zip(item.storage_offsets, item.lengths, strict=True)
            yield item, whole[tuple(slice(at, at + length) for at, length in box)]


def _read_stretch(folder: Folder, file: str, first: int, last: int) -> Tensor:
    """Read bytes [first, last) of a file."""
    stretch = torch.empty(last - first, dtype=torch.uint8)
    if not len(stretch):
        return stretch
    with folder.open(file) as source:
        source.seek(first)
        count = source.readinto(stretch.numpy().data)
    if count != last - first:
        raise CheckpointError(
            f"{file} is cut short", where=folder, got=f"{first + count} bytes", expected=last
        )
    return stretch
