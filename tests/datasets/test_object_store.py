"""Datasets and shards in an object store: a real S3 API, served on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrtspike.datasets.clip import read_frames, read_spikes
from vrtspike.datasets.index import open_dataset
from vrtspike.errors import DataFormatError
from vrtspike.samples.order import Draw
from vrtspike.samples.sample import SampleReader
from vrtspike.samples.shards import MANIFEST, Manifest
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.storage import folder as storage
from vrtspike.storage.folder import Folder

Prepare = Callable[..., Manifest]


@pytest.fixture
def uploaded(upload: Callable[[Path, str], str], source: Path, tmp_path: Path) -> str:
    """Return the URI of the dataset `source` in the store."""
    return upload(source, tmp_path.name)


def contents(folder: Folder) -> dict[str, bytes]:
    return {file: folder.read(file) for file in folder.listing()}


def test_a_store_lists_reads_and_deletes_as_a_folder_does(bucket: str, tmp_path: Path) -> None:
    for folder in (Folder.at(bucket.format("some%20place")), Folder.at(tmp_path)):
        assert folder.size("a/b ü.bin") is None
        folder.write("a/b ü.bin", b"123")
        folder.write("a/.hidden", b"")
        assert {name: stamp.size for name, stamp in folder.listing().items()} == {"a/b ü.bin": 3}
        assert folder.listing("a").keys() == {"a/b ü.bin"}
        assert folder.read("a/b ü.bin") == b"123"
        assert folder.sha256("a/b ü.bin").startswith("a665a459204")
        with folder.local(["a/b ü.bin"]) as path:
            assert (path / "a/b ü.bin").read_bytes() == b"123"
        folder.remove("a/b ü.bin")
        folder.remove("a/b ü.bin")
        assert folder.size("a/b ü.bin") is None
        with pytest.raises(DataFormatError, match="cannot read the file"):
            folder.read("a/b ü.bin")


def test_a_dataset_in_a_store_reads_as_on_disk(uploaded: str, source: Path) -> None:
    here, there = (open_dataset(where).clip("train", "b ü") for where in (source, uploaded))
    assert there.frames == here.frames
    with there.local() as clip:
        np.testing.assert_array_equal(read_frames(clip, "sharp"), read_frames(here, "sharp"))
        np.testing.assert_array_equal(read_spikes(clip), read_spikes(here))


def test_shards_in_a_store_are_those_on_disk_and_train_alike(
    prepare: Prepare, uploaded: str, bucket: str, source: Path, tmp_path: Path
) -> None:
    target = bucket.format(f"{tmp_path.name}-shards")
    local = prepare(source, tmp_path / "shards")
    remote = prepare(uploaded, target)
    assert remote.source == f"s3://clips/{tmp_path.name}"
    for name, split in remote.splits.items():
        assert [s.sha256 for s in split.shards] == [s.sha256 for s in local.splits[name].shards]
    reader = SampleReader(
        shards=str(tmp_path / "shards"),
        split="train",
        fingerprint=local.fingerprint,
        crop=32,
        augment=True,
        spikes=SpikeRepresentation(8),
        seed=5,
    )
    there = replace(reader, shards=target)
    here_batch, there_batch = (r.training([Draw(0, 1), Draw(2, 0)]) for r in (reader, there))
    for name, array in here_batch.items():
        np.testing.assert_array_equal(there_batch[name], array)


@pytest.mark.slow
def test_killed_at_any_object_and_started_again_it_ends_with_the_same_bytes(
    prepare: Prepare,
    uploaded: str,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = storage.Folder.write
    whole = Folder.at(bucket.format(f"{tmp_path.name}-whole"))
    prepare(uploaded, whole.where)
    expected = contents(whole)
    for allowed in range(len(expected)):
        left = allowed

        def failing(folder: Folder, file: str, content: bytes) -> None:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            write(folder, file, content)

        target = Folder.at(bucket.format(f"{tmp_path.name}-killed{allowed}"))
        monkeypatch.setattr(Folder, "write", failing)
        with pytest.raises(KeyboardInterrupt):
            prepare(uploaded, target.where)
        assert target.size(MANIFEST) is None
        monkeypatch.setattr(Folder, "write", write)
        prepare(uploaded, target.where)
        assert contents(target) == expected


@pytest.mark.parametrize("where", ["nowhere://bucket/folder", "s3://bucket/a folder"])
def test_a_place_that_cannot_be_reached_is_one_clear_line(where: str) -> None:
    with pytest.raises(DataFormatError, match=r"cannot reach this place \[.*"):
        open_dataset(where)


def test_other_file_systems_come_through_fsspec(source: Path) -> None:
    import fsspec

    memory: Any = fsspec.filesystem("memory")
    memory.put(str(source), "/clips", recursive=True)
    clip = open_dataset("memory://clips").clip("train", "a")
    assert clip.frames == open_dataset(source).clip("train", "a").frames
