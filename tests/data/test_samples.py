"""Samples of the pipeline: aligned, reproducible, and no more than was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vrtspike.data.clips import read_frames, read_spikes
from vrtspike.data.dataset import open_dataset
from vrtspike.data.order import Draw, sample_rng
from vrtspike.data.samples import SampleReader
from vrtspike.data.shards import Manifest
from vrtspike.data.voxelize import bin_steps, normalize_voxels, voxelize


@pytest.fixture
def reader(prepare: Callable[..., Manifest], source: Path, tmp_path: Path) -> SampleReader:
    manifest = prepare(source, tmp_path / "shards", frames=3)
    return SampleReader(
        shards=str(tmp_path / "shards"),
        split="train",
        fingerprint=manifest.fingerprint,
        crop=32,
        augment=True,
        bins=8,
        seed=5,
    )


def test_shapes_and_types(reader: SampleReader) -> None:
    batch = reader.training([Draw(0, 0), Draw(0, 3)])
    assert {name: (array.shape, str(array.dtype)) for name, array in batch.items()} == {
        "blurred": ((2, 3, 3, 32, 32), "uint8"),
        "sharp": ((2, 3, 3, 32, 32), "uint8"),
        "counts": ((2, 3, 8, 32, 32), "uint8"),
        "steps": ((2, 8), "float32"),
    }
    assert "counts" not in replace(reader, bins=None).training([Draw(0, 0)])


def test_a_whole_sample_is_the_dataset(reader: SampleReader, source: Path) -> None:
    clip = open_dataset(source).clip("train", "a")
    batch = reader.whole(1)
    np.testing.assert_array_equal(
        batch["sharp"][0], read_frames(clip, "sharp", 1, 4).transpose(0, 3, 1, 2)
    )
    spikes = read_spikes(clip, 1, 4)
    for frame in range(3):
        expected = voxelize(spikes[frame], 8, start=0, stop=56)
        np.testing.assert_array_equal(batch["counts"][0, frame], expected)


def test_equal_draws_are_equal_and_epochs_differ(reader: SampleReader) -> None:
    first, again = (reader.training([Draw(0, 2)]) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    views = {reader.training([Draw(epoch, 2)])["sharp"].tobytes() for epoch in range(6)}
    assert len(views) == 6


def test_with_and_without_spikes_a_model_sees_the_same_frames(reader: SampleReader) -> None:
    fused, plain = (replace(reader, bins=bins).training([Draw(1, 4)]) for bins in (8, None))
    np.testing.assert_array_equal(fused["blurred"], plain["blurred"])


@pytest.mark.parametrize("epoch", range(12))
def test_frames_and_spikes_show_the_same_under_every_draw(reader: SampleReader, epoch: int) -> None:
    batch = reader.training([Draw(epoch, 0)])
    steps = bin_steps(56, 8)
    voxels = normalize_voxels(batch["counts"][0], steps, 2.0, "rate")
    blurred = np.tensordot((0.299, 0.587, 0.114), batch["blurred"][0] / 255, axes=(0, 1))
    total = np.average(voxels, axis=1, weights=steps)
    # The mean rate over the exposure is the blurred frame, up to the charge that is left over.
    assert np.abs(total - blurred).max() < 2.5 * 2 / 56
    wrong = [np.flip(total, 1), np.flip(total, 2), total.swapaxes(1, 2)]
    right = np.abs(total - blurred).mean()
    assert all(np.abs(other - blurred).mean() > 2 * right for other in wrong)


def test_a_reversal_in_time_reverses_the_bins(reader: SampleReader, source: Path) -> None:
    clip = open_dataset(source).clip("train", "a")
    spikes = read_spikes(clip, 0, 3)
    seen = set()
    for epoch in range(12):
        draw = Draw(epoch, 0)
        batch = replace(reader, crop=40).training([draw])
        coins = sample_rng(5, draw).random(6)[2:] < 0.5
        reverse = bool(coins[3])
        seen.add(reverse)
        counts = batch["counts"][0].astype(int).sum(axis=(2, 3))
        whole = np.stack([voxelize(frame[:56], 8) for frame in spikes])
        left = int(sample_rng(5, draw).random(2)[1] * 9)
        expected = whole[..., left : left + 40].astype(int).sum(axis=(2, 3))
        np.testing.assert_array_equal(counts, expected[::-1, ::-1] if reverse else expected)
    assert seen == {False, True}


def test_a_raised_threshold_keeps_frames_and_rates(reader: SampleReader) -> None:
    raised = replace(reader, threshold_factors=(2,), augment=False)
    plain, other = (
        r.training([Draw(0, i) for i in range(4)]) for r in (replace(reader, augment=False), raised)
    )
    for name in ("blurred", "sharp"):
        np.testing.assert_array_equal(plain[name], other[name])
    np.testing.assert_array_equal(other["steps"], plain["steps"] / 2)
    assert (other["counts"] <= plain["counts"]).all()
    rates = [(b["counts"].sum((0, 1, 3, 4)) / b["steps"][0]).mean() for b in (plain, other)]
    assert rates[1] == pytest.approx(rates[0], rel=0.02)


def test_a_shift_takes_other_steps_of_the_same_frames(reader: SampleReader) -> None:
    shifted = replace(reader, time_shift_steps=8, augment=False)
    draws = [Draw(epoch, 0) for epoch in range(8)]
    batches = [r.training(draws) for r in (replace(reader, augment=False), shifted)]
    np.testing.assert_array_equal(batches[0]["sharp"], batches[1]["sharp"])
    same = [np.array_equal(a, b) for a, b in zip(*(b["counts"] for b in batches), strict=True)]
    assert not all(same)


def test_dropped_spikes_leave_the_frames_and_the_other_samples(reader: SampleReader) -> None:
    some = replace(reader, drop_spikes=0.5)
    draws = [Draw(epoch, 0) for epoch in range(16)]
    plain, dropped = (r.training(draws) for r in (reader, some))
    for name in ("blurred", "sharp", "steps"):
        np.testing.assert_array_equal(plain[name], dropped[name])
    gone = [not counts.any() for counts in dropped["counts"]]
    assert 2 < sum(gone) < 14
    for is_gone, before, after in zip(gone, plain["counts"], dropped["counts"], strict=True):
        assert is_gone or np.array_equal(before, after)
