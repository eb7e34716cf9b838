"""Shards are read as what they are: bytes and numbers, and nothing that runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vrtspike.errors import DataFormatError
from vrtspike.samples.shards import SCHEMA, SampleRef, Shape, ShardFile, Split, read_sample
from vrtspike.spikes.timeline import Timeline

SHAPE = Shape(t=1, h=2, w=2, hs=0, ws=0)
ROW = {"sample": "a/0", "sequence": "a", "start": 0, "blurred": bytes(12), "sharp": bytes(12)}
ROW |= {"spikes": b""}


class Objects(pa.ExtensionType):
    """A column whose values Python makes of bytes, as Ray's `arrow_pickled_object` does."""

    made: ClassVar[list[bytes]] = []

    def __init__(self) -> None:
        super().__init__(pa.large_binary(), "tests.objects")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> Objects:
        return cls()

    def __arrow_ext_scalar_class__(self) -> type[pa.ExtensionScalar]:
        return Made


class Made(pa.ExtensionScalar):
    def as_py(self, **_: Any) -> str:
        Objects.made.append(self.value.as_py())  # Ray: pickle.load
        return "a/0"


@pytest.fixture
def objects() -> Iterator[type[Objects]]:
    pa.register_extension_type(Objects())
    yield Objects
    pa.unregister_extension_type("tests.objects")


def split_of(file: str) -> Split:
    timeline = Timeline(steps_per_frame=2, exposure=(0, 2), target_step=1)
    shard = ShardFile(file=file, rows=1, bytes=1, sha256="", timeline=timeline, threshold=None)
    return Split(shape=SHAPE, shards=(shard,), samples=(SampleRef(id="a/0", shard=0, row=0),))


def test_a_sample_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([ROW], schema=SCHEMA), tmp_path / "a.parquet")
    assert read_sample(str(tmp_path), split_of("a.parquet"), 0, spikes=False).id == "a/0"


@pytest.mark.parametrize("column", ["sample", "blurred", "further"])
def test_columns_of_objects_are_not_made(
    column: str, tmp_path: Path, objects: type[Objects]
) -> None:
    table = pa.Table.from_pylist([ROW], schema=SCHEMA)
    values = pa.ExtensionArray.from_storage(objects(), pa.array([b"code"], pa.large_binary()))
    if column in table.column_names:
        table = table.set_column(table.column_names.index(column), column, values)
    else:
        table = table.append_column(column, values)
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataFormatError, match=r"other columns.*a\.parquet") as caught:
        read_sample(str(tmp_path), split_of("a.parquet"), 0, spikes=False)
    assert not objects.made and "\n" not in str(caught.value)
