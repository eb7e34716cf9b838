"""Shards hold the dataset, each sample once, and are the same bytes however often one starts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrtspike.datasets.clip import read_frames, read_spikes
from vrtspike.datasets.index import open_dataset
from vrtspike.errors import DataFormatError, ResourceError, VrtSpikeError
from vrtspike.samples.sample import SampleReader
from vrtspike.samples.shards import MANIFEST, Manifest, read_manifest, read_sample
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.storage.folder import Folder

Prepare = Callable[..., Manifest]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder by its relative path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_samples_are_the_clips_of_the_dataset(
    prepare: Prepare, source: Path, tmp_path: Path
) -> None:
    manifest = prepare(source, tmp_path / "shards")
    train, val = manifest.splits["train"], manifest.splits["val"]
    assert [ref.id for ref in train.samples] == [
        *("a/000000", "a/000001", "a/000002"),
        *("b ü/000000", "b ü/000001"),
    ]
    assert [(ref.shard, ref.row) for ref in train.samples] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (2, 0),
        (2, 1),
    ]
    # Whole frames, and the last clip shifted back to the end.
    assert [ref.id for ref in val.samples] == ["c/000000", "c/000001"]
    clip = open_dataset(source).clip("train", "b ü")
    sample = read_sample(str(tmp_path / "shards"), train, 4)
    np.testing.assert_array_equal(sample.blurred, read_frames(clip, "blurred", 1, 4))
    np.testing.assert_array_equal(sample.sharp, read_frames(clip, "sharp", 1, 4))
    bits = sample.spike_bits(slice(0, 40), slice(0, 48))
    np.testing.assert_array_equal(bits, read_spikes(clip, 1, 4))
    window = sample.spike_bits(slice(3, 20), slice(11, 30))
    np.testing.assert_array_equal(window, bits[:, :, 3:20, 11:30])


def test_tiles_cover_the_frame_and_keep_their_place(
    prepare: Prepare, source: Path, tmp_path: Path
) -> None:
    manifest = prepare(source, tmp_path / "shards", tile=32, stride=2, shard_samples=100)
    train, val = manifest.splits["train"], manifest.splits["val"]
    corners = ["0_0", "0_16", "8_0", "8_16"]
    assert [ref.id for ref in train.samples[:4]] == [f"a/000000/{corner}" for corner in corners]
    assert train.samples[4].id == "a/000002/0_0"
    assert (train.shape.h, train.shape.ws, val.shape.h) == (32, 32, 40)
    clip = open_dataset(source).clip("train", "a")
    sample = read_sample(str(tmp_path / "shards"), train, 3)
    np.testing.assert_array_equal(sample.sharp, read_frames(clip, "sharp", 0, 3)[:, 8:40, 16:48])
    bits = sample.spike_bits(slice(0, 32), slice(0, 32))
    np.testing.assert_array_equal(bits, read_spikes(clip, 0, 3)[:, :, 8:40, 16:48])


def test_killed_at_any_file_and_started_again_it_ends_with_the_same_bytes(
    prepare: Prepare, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(source, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    write = Folder.write
    for allowed in range(len(expected)):
        left = allowed

        def failing(folder: Folder, file: str, content: bytes) -> None:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            write(folder, file, content)

        target = tmp_path / f"killed{allowed}"
        monkeypatch.setattr(Folder, "write", failing)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, target)
        assert not (target / MANIFEST).exists()
        monkeypatch.setattr(Folder, "write", write)
        prepare(source, target)
        assert contents(target) == expected


def test_only_what_is_missing_or_damaged_is_written_again(
    prepare: Prepare, source: Path, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    first = prepare(source, shards)
    paths = sorted((shards / "train").glob("*.parquet"))
    before = {path: path.stat().st_mtime_ns for path in paths}
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.truncate(paths[2], 100)
    assert prepare(source, shards) == first
    assert [path.stat().st_mtime_ns == before[path] for path in paths] == [True, False, False]
    assert paths[1].read_bytes() == content


def test_a_changed_dataset_or_setting_is_prepared_again(
    prepare: Prepare, source: Path, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    first = prepare(source, shards)
    assert prepare(source, shards) == first
    image = source / "train" / "a" / "sharp" / "000002.png"
    image.write_bytes((source / "train" / "a" / "sharp" / "000003.png").read_bytes())
    changed = prepare(source, shards)
    assert changed.fingerprint != first.fingerprint
    fewer = prepare(source, shards, stride=2)
    assert len(fewer.splits["train"].samples) == 3
    assert len(list((shards / "train").glob("*.parquet"))) == 2
    assert read_manifest(shards) == fewer


def test_refused_sequences_are_named_and_limited(
    prepare: Prepare, source: Path, tmp_path: Path
) -> None:
    (source / "train" / "a" / "sharp" / "000001.png").write_bytes(b"not an image")
    (source / "train" / "b ü" / "spike" / "000002.dat").unlink()
    with pytest.raises(DataFormatError, match="1 sequences"):
        prepare(source, tmp_path / "shards")
    with pytest.raises(DataFormatError, match="2 sequences"):
        prepare(source, tmp_path / "shards", allow_refused=1)
    assert not (tmp_path / "shards" / MANIFEST).exists()
    with pytest.raises(DataFormatError, match="no sequence of split 'train'"):
        prepare(source, tmp_path / "shards", allow_refused=2)
    (source / "train" / "b ü" / "spike" / "000002.dat").write_bytes(
        (source / "train" / "b ü" / "spike" / "000001.dat").read_bytes()
    )
    manifest = prepare(source, tmp_path / "shards", allow_refused=1)
    assert [refusal.sequence for refusal in manifest.refused] == ["train/a"]
    assert "000001.png" in manifest.refused[0].reason
    assert {ref.id.split("/")[0] for ref in manifest.splits["train"].samples} == {"b ü"}


def test_too_short_sequences_and_impossible_tiles_are_refused(
    prepare: Prepare, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataFormatError, match="shorter than a sample"):
        prepare(source, tmp_path / "shards", frames=6)
    with pytest.raises(DataFormatError, match="tiles do not fit"):
        prepare(source, tmp_path / "shards", tile=41)
    with pytest.raises(DataFormatError, match="no such split"):
        prepare(source, tmp_path / "shards", splits=("train", "test"))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFormatError, match="not a folder"):
        prepare(source, tmp_path / "file")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / MANIFEST).write_text("{"),
        lambda folder: (folder / MANIFEST).write_text("[]"),
        lambda folder: (folder / MANIFEST).write_text(json.dumps({"version": 99})),
        lambda folder: (folder / MANIFEST).write_text(json.dumps({"version": 1})),
        lambda folder: (folder / "train" / "00000.parquet").unlink(),
        lambda folder: os.truncate(folder / "val" / "00000.parquet", 10),
    ],
)
def test_a_folder_that_is_not_whole_is_an_error(
    prepare: Prepare, source: Path, tmp_path: Path, damage: Callable[[Path], Any]
) -> None:
    prepare(source, tmp_path / "shards")
    damage(tmp_path / "shards")
    with pytest.raises(VrtSpikeError, match=r"shard|manifest|version"):
        read_manifest(tmp_path / "shards")


def test_a_flipped_bit_in_a_shard_is_found_and_repaired(
    prepare: Prepare, source: Path, tmp_path: Path
) -> None:
    first = prepare(source, tmp_path / "shards")
    path = tmp_path / "shards" / first.splits["val"].shards[0].file
    content = path.read_bytes()
    path.write_bytes(content[:9999] + bytes([content[9999] ^ 4]) + content[10000:])
    assert prepare(source, tmp_path / "shards") == first
    assert path.read_bytes() == content


def test_files_of_others_in_the_folder_are_kept(
    prepare: Prepare, source: Path, tmp_path: Path
) -> None:
    for name in ("notes/000001.json", "mine/7.parquet", "mine/8.json"):
        (tmp_path / "shards" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shards" / name).write_text('{"of": "somebody"}')
    prepare(source, tmp_path / "shards")
    prepare(source, tmp_path / "shards", stride=2)
    for name in ("notes/000001.json", "mine/7.parquet", "mine/8.json"):
        assert (tmp_path / "shards" / name).is_file()


def test_a_fault_of_the_disk_refuses_no_sequence(
    prepare: Prepare, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Folder.write

    def failing(folder: Folder, file: str, content: bytes) -> None:
        if file.endswith("00001.parquet"):
            raise DataFormatError("cannot write the file: No space left on device", where=file)
        write(folder, file, content)

    monkeypatch.setattr(Folder, "write", failing)
    with pytest.raises(ResourceError, match="No space left"):
        prepare(source, tmp_path / "shards", allow_refused=3)
    monkeypatch.setattr(Folder, "write", write)
    assert prepare(source, tmp_path / "shards", allow_refused=3).refused == ()


def test_sequences_of_other_thresholds_give_comparable_rates(
    prepare: Prepare, source: Path, tmp_path: Path
) -> None:
    (source / "train" / "a" / "sequence.yaml").write_text("spike: {threshold: 8}\n")
    manifest = prepare(source, tmp_path / "shards")
    reader = SampleReader(
        shards=str(tmp_path / "shards"),
        split="train",
        fingerprint=manifest.fingerprint,
        crop=32,
        augment=False,
        spikes=SpikeRepresentation(8),
        seed=0,
    )
    assert manifest.info.camera.threshold == 8  # the first sequence's
    samples = manifest.splits["train"].samples
    for index, threshold in ((0, 8), (len(samples) - 1, 2)):
        sequence, start = samples[index].id.split("/")[:2]
        clip = open_dataset(source).clip("train", sequence)
        spikes = read_spikes(clip, int(start), int(start) + 3)[:, :56]
        bins = spikes.reshape(3, 8, 7, *spikes.shape[2:]).mean(axis=2)
        found = reader.whole(index)["voxels"][0]
        np.testing.assert_allclose(found, threshold * bins, rtol=2**-11)  # float16
    (source / "train" / "a" / "sequence.yaml").write_text("spike: {light: linear}\n")
    with pytest.raises(DataFormatError, match="another kind"):
        prepare(source, tmp_path / "shards")
