"""The benchmark of the data: what it measures is right, and its report is whole. No times here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from vrtspike.bench import data_stages
from vrtspike.bench.data import DataPlan, DataReport, run_data_plan
from vrtspike.bench.data_pipeline import Throughput
from vrtspike.bench.data_stages import FolderSource, ShardSource, StageClock, measure_stages
from vrtspike.bench.generated import Sizes, make_clip, write_folder, write_shards
from vrtspike.bench.tables import stages_table, throughput_table, voxelization_table
from vrtspike.datasets.clip import read_frames, read_spikes
from vrtspike.datasets.index import open_dataset
from vrtspike.errors import ConfigError
from vrtspike.samples.order import Draw
from vrtspike.samples.sample import SampleReader
from vrtspike.samples.shards import read_manifest, read_sample
from vrtspike.spikes.representation import SpikeRepresentation

SIZES = Sizes(height=48, width=64, frames=2, steps=20, crop=32, bins=6)
PLAN = DataPlan(
    sizes=SIZES,
    repeats=1,
    cores=(),
    batches=12,
    many=(3, 9),
    many_sizes=replace(SIZES, crop=16),
    many_batches=12,
)


@pytest.fixture
def reader(tmp_path: Path) -> SampleReader:
    """Return a reader of the samples of two clips, which are a dataset folder, too."""
    clips = [make_clip(SIZES, seed) for seed in range(2)]
    write_folder(tmp_path / "folder", SIZES, clips)
    manifest = write_shards(tmp_path / "shards", SIZES, clips, 2)
    return SampleReader(
        shards=str(tmp_path / "shards"),
        split="train",
        fingerprint=manifest.fingerprint,
        crop=SIZES.crop,
        augment=True,
        spikes=SpikeRepresentation(SIZES.bins),
        seed=0,
    )


def test_the_spikes_show_the_sharp_frames_and_the_blurred_ones_move() -> None:
    clip = make_clip(replace(SIZES, steps=400), 3)
    mean = 2 * clip.spikes[0].mean(axis=0)
    gray = clip.sharp[0, ::2, ::2].mean(axis=-1) / 255
    np.testing.assert_allclose(mean, gray, atol=2.01 / 400)
    assert (clip.blurred[0] != clip.sharp[0]).any() and (clip.sharp[0] != clip.sharp[1]).any()
    again, other = make_clip(SIZES, 3), make_clip(SIZES, 4)
    np.testing.assert_array_equal(again.spikes, make_clip(SIZES, 3).spikes)
    assert (again.sharp != other.sharp).any()


def test_folder_and_shards_hold_the_clips(reader: SampleReader, tmp_path: Path) -> None:
    split = read_manifest(reader.shards).splits["train"]
    for number in range(2):
        made = make_clip(SIZES, number)
        clip = open_dataset(tmp_path / "folder").clip("train", f"{number:05d}")
        sample = read_sample(reader.shards, split, number)
        for kind in ("blurred", "sharp"):
            np.testing.assert_array_equal(read_frames(clip, kind), getattr(made, kind))
            np.testing.assert_array_equal(getattr(sample, kind), getattr(made, kind))
        np.testing.assert_array_equal(read_spikes(clip), made.spikes)
        bits = sample.spike_bits(slice(0, 24), slice(0, 32))
        np.testing.assert_array_equal(bits, made.spikes)


def test_many_clips_are_the_few_in_turns(tmp_path: Path) -> None:
    clips = [make_clip(SIZES, seed) for seed in range(2)]
    split = write_shards(tmp_path, SIZES, clips, 5).splits["train"]
    assert len({sample.id for sample in split.samples}) == len(split.shards) == 5
    for number in range(5):
        found = read_sample(str(tmp_path), split, number)
        np.testing.assert_array_equal(found.sharp, clips[number % 2].sharp)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of"):
        Sizes(height=721)
    with pytest.raises(ConfigError, match="larger than the frame"):
        Sizes(crop=722)


@pytest.mark.parametrize("epoch", range(6))
def test_each_source_makes_the_training_sample(
    reader: SampleReader, tmp_path: Path, epoch: int
) -> None:
    draws = [Draw(epoch, 1), Draw(epoch, 0)]
    expected = reader.training(draws)
    for source in (ShardSource(reader), FolderSource(str(tmp_path / "folder"), reader)):
        clock = StageClock()
        found = source.make(draws, clock)
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
        assert ("decode" in clock.seconds) == isinstance(source, FolderSource)


def test_sources_that_differ_are_not_compared(
    reader: SampleReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = data_stages._decode
    monkeypatch.setattr(data_stages, "_decode", lambda content: decode(content) ^ 1)
    with pytest.raises(AssertionError, match="blurred"):
        measure_stages(str(tmp_path / "folder"), reader, [[Draw(0, 0)]])


def test_stages_sum_to_the_whole(reader: SampleReader, tmp_path: Path) -> None:
    draws = [[Draw(epoch, 0), Draw(epoch, 1)] for epoch in range(5)]
    for found in measure_stages(str(tmp_path / "folder"), reader, draws):
        assert sum(found.shares.values()) == pytest.approx(1)
        assert 0.3 * found.total_s < sum(found.seconds.values()) <= found.total_s


def report(throughput: list[Throughput], memory: list[Throughput]) -> DataReport:
    return replace(run_data_plan(PLAN, lambda *_: None), throughput=throughput, memory=memory)


def test_the_report_without_ray(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[int, int]] = []
    found = run_data_plan(PLAN, lambda *call: calls.append(call))
    assert calls == [(done, 3) for done in range(4)]
    facts = json.loads(json.dumps(found.as_dict()))
    assert [stages["source"] for stages in facts["stages"]] == ["shards", "folder"]
    assert facts["plan"]["sizes"]["crop"] == 32 and facts["throughput"] == []
    ways = {way["name"]: way for way in facts["voxelization"]}
    assert ways["voxelize_stream"]["over_voxelize"] == 1
    for way in ways.values():
        assert way["bits_s"] == pytest.approx(20 * 24 * 32 / way["seconds"])
    Console(width=200).print(voxelization_table(found.voxelization), stages_table(found.stages))
    shown = capsys.readouterr().out
    assert "np.add.at" in shown and "decode" in shown


def test_ratios_are_to_the_fewest_cores_of_the_source_and_the_fewest_clips(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def case(**values: object) -> Throughput:
        known = {"source": "shards", "cores": 1, "clips": 2, "samples_s": 10.0, "peak_bytes": 100}
        rest = ("bytes_s", "consumer_cpu_s", "workers_cpu_s", "workers", "consumer_bytes")
        return Throughput(**(dict.fromkeys(rest, 1) | known | values))  # type: ignore[arg-type]

    runs = [case(cores=2, samples_s=18.0), case(), case(source="folder", cores=2, samples_s=3.0)]
    many = [case(clips=1000, peak_bytes=150), case(clips=100)]
    facts = (found := report(runs, many)).as_dict()
    assert [entry["speedup"] for entry in facts["throughput"]] == [1.8, 1, 1]
    assert [entry["growth"] for entry in facts["memory"]] == [1.5, 1]
    Console(width=200).print(throughput_table(found))
    shown = capsys.readouterr().out
    assert "18 (1.80x)" in shown and "1.50x" in shown
