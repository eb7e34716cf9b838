"""Preparing and streaming over Ray give what one process gives, in the same order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vrtspike.errors import DataFormatError
from vrtspike.samples.order import StepLayout
from vrtspike.samples.sample import SampleReader
from vrtspike.samples.shards import Manifest, read_manifest
from vrtspike.spikes.representation import SpikeRepresentation

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.ray]


@pytest.fixture(scope="module")
def source(
    tmp_path_factory: pytest.TempPathFactory, moving_photograph: Callable[..., Path]
) -> Path:
    root = tmp_path_factory.mktemp("data") / "source"
    moving_photograph(root, {"a": 4, "b": 4, "c": 3}, split="train")
    return moving_photograph(root, {"d": 3}, split="val")


def run_prepare(
    source: Path | str, shards: Path | str, allow_refused: int = 0
) -> list[tuple[int, int]]:
    from vrtspike.samples.prepare import prepare

    calls: list[tuple[int, int]] = []
    prepare(
        source,
        shards,
        frames=2,
        stride=1,
        tile=None,
        shard_samples=2,
        splits=("train", "val"),
        allow_refused=allow_refused,
        progress=lambda *call: calls.append(call),
    )
    return calls


def make_reader(shards: str, manifest: Manifest) -> SampleReader:
    return SampleReader(
        shards=shards,
        split="train",
        fingerprint=manifest.fingerprint,
        crop=32,
        augment=True,
        spikes=SpikeRepresentation(8),
        seed=1,
    )


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def manifest(source: Path) -> Manifest:
    run_prepare(source, source.parent / "shards")
    return read_manifest(source.parent / "shards")


def test_prepared_over_ray_are_the_bytes_of_one_process(
    source: Path, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vrtspike.samples import prepare as module

    calls = run_prepare(source, tmp_path / "ray")
    assert calls == [(done, 4) for done in range(5)]
    assert run_prepare(source, tmp_path / "ray") == [(4, 4)]
    monkeypatch.setattr(
        module,
        "_run",
        lambda jobs, shards: (
            module._prepare_numbered({"number": i}, jobs, shards) for i in range(len(jobs))
        ),
    )
    run_prepare(source, tmp_path / "one")
    assert contents(tmp_path / "ray") == contents(tmp_path / "one")


def test_a_store_gives_the_shards_and_the_stream_of_a_disk(
    source: Path, manifest: Manifest, bucket: str, upload: Callable[[Path, str], str]
) -> None:
    from vrtspike.samples.stream import MicroBatches, Stream

    shards = bucket.format("ray-shards")
    run_prepare(upload(source, "ray-source"), shards)
    remote = read_manifest(shards)
    assert remote.fingerprint == manifest.fingerprint
    reader = make_reader(str(source.parent / "shards"), manifest)
    expected = Stream(reader, 8, StepLayout(2, 2, 1), 0)
    found = MicroBatches(
        Stream(make_reader(shards, remote), 8, StepLayout(2, 2, 1), 0), 0, 3, cpus=1
    )
    for number, batch in enumerate(found):
        for name, array in expected.make(number).items():
            np.testing.assert_array_equal(batch[name], array)


def test_a_refused_sequence_is_an_error_with_its_reason(
    tmp_path: Path, moving_photograph: Callable[..., Path]
) -> None:
    moving_photograph(tmp_path / "set", {"a": 3}, split="val")
    root = moving_photograph(tmp_path / "set", {"a": 3, "b": 3}, split="train")
    (root / "train" / "b" / "blurred" / "000001.png").write_bytes(b"")
    with pytest.raises(DataFormatError, match=r"train/b.*000001\.png"):
        run_prepare(root, tmp_path / "shards")
    run_prepare(root, tmp_path / "shards", allow_refused=1)


@pytest.mark.parametrize("start", [0, 5])
def test_the_stream_of_every_rank_is_the_plan(
    source: Path, manifest: Manifest, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vrtspike.samples import stream as pipeline
    from vrtspike.samples.stream import MicroBatches, Stream

    # Several datasets after one another, of several tasks each.
    monkeypatch.setattr(pipeline, "AHEAD", 2)
    monkeypatch.setattr(pipeline, "SEGMENT", 4)
    monkeypatch.setattr(pipeline, "RUN", 3)
    reader = make_reader(str(source.parent / "shards"), manifest)
    streams = [Stream(reader, 8, StepLayout(4, 2, 2), rank) for rank in (0, 1)]
    batches = [MicroBatches(stream, start, 10, cpus=0.5) for stream in streams]
    batches[0].start()
    for rank, found in enumerate(batches):
        numbers = list(range(start, 10))
        for number, batch in zip(numbers, found, strict=True):
            expected = streams[rank].make(number)
            assert batch.keys() == expected.keys()
            for name in expected:
                np.testing.assert_array_equal(batch[name], expected[name])
    assert batches[1].waited > 0
