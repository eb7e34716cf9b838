"""Samples of the pipeline: aligned, reproducible, and no more than was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.spikes.naive_voxels import voxelize
from vrtspike.datasets.clip import read_frames, read_spikes
from vrtspike.datasets.index import open_dataset
from vrtspike.datasets.represent import represent_frames
from vrtspike.samples.order import Draw, sample_rng
from vrtspike.samples.sample import SampleReader
from vrtspike.samples.shards import Manifest
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.spikes.voxels import bin_steps


@pytest.fixture
def reader(prepare: Callable[..., Manifest], source: Path, tmp_path: Path) -> SampleReader:
    manifest = prepare(source, tmp_path / "shards", frames=3)
    return SampleReader(
        shards=str(tmp_path / "shards"),
        split="train",
        fingerprint=manifest.fingerprint,
        crop=32,
        augment=True,
        spikes=SpikeRepresentation(8),
        seed=5,
    )


def rounded(counts: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the counts that rates of float16 stand for, or fail where they are none."""
    whole = counts.round()
    np.testing.assert_allclose(counts, whole, atol=2e-3)
    return whole.astype(np.int64)


def test_shapes_and_types(reader: SampleReader) -> None:
    batch = reader.training([Draw(0, 0), Draw(0, 3)])
    assert {name: (array.shape, str(array.dtype)) for name, array in batch.items()} == {
        "blurred": ((2, 3, 3, 32, 32), "uint8"),
        "sharp": ((2, 3, 3, 32, 32), "uint8"),
        "voxels": ((2, 3, 8, 32, 32), "float16"),
    }
    assert "voxels" not in replace(reader, spikes=None).training([Draw(0, 0)])


def test_a_whole_sample_is_the_dataset(reader: SampleReader, source: Path) -> None:
    clip = open_dataset(source).clip("train", "a")
    batch = reader.whole(1)
    np.testing.assert_array_equal(
        batch["sharp"][0], read_frames(clip, "sharp", 1, 4).transpose(0, 3, 1, 2)
    )
    spikes = read_spikes(clip, 1, 4)
    for frame in range(3):
        expected = voxelize(spikes[frame], 8, start=0, stop=56) * 2.0 / 7
        # float16 keeps 11 digits: half of the last one is 2^-12 of a rate below 2.
        np.testing.assert_allclose(batch["voxels"][0, frame], expected, rtol=2**-11)


def test_equal_draws_are_equal_and_epochs_differ(reader: SampleReader) -> None:
    first, again = (reader.training([Draw(0, 2)]) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    views = {reader.training([Draw(epoch, 2)])["sharp"].tobytes() for epoch in range(6)}
    assert len(views) == 6


def test_with_and_without_spikes_a_model_sees_the_same_frames(reader: SampleReader) -> None:
    fused, plain = (
        replace(reader, spikes=spikes).training([Draw(1, 4)]) for spikes in (reader.spikes, None)
    )
    np.testing.assert_array_equal(fused["blurred"], plain["blurred"])


@pytest.mark.parametrize("epoch", range(12))
def test_frames_and_spikes_show_the_same_under_every_draw(reader: SampleReader, epoch: int) -> None:
    batch = reader.training([Draw(epoch, 0)])
    voxels = batch["voxels"][0].astype(np.float32)
    blurred = np.tensordot((0.299, 0.587, 0.114), batch["blurred"][0] / 255, axes=(0, 1))
    total = np.average(voxels, axis=1, weights=bin_steps(56, 8))
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
        counts = rounded(batch["voxels"][0].astype(float) * 7 / 2).sum(axis=(2, 3))
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
    # A spike counts twice, and there is at most every second one; within float16's rounding.
    counts = [rounded(b["voxels"].astype(float) * 7 / t) for b, t in ((plain, 2), (other, 4))]
    assert (counts[1] <= counts[0]).all()
    rates = [b["voxels"].mean(dtype=float) for b in (plain, other)]
    assert rates[1] == pytest.approx(rates[0], rel=0.02)


def test_a_shift_takes_other_steps_of_the_same_frames(reader: SampleReader) -> None:
    shifted = replace(reader, time_shift_steps=8, augment=False)
    draws = [Draw(epoch, 0) for epoch in range(8)]
    batches = [r.training(draws) for r in (replace(reader, augment=False), shifted)]
    np.testing.assert_array_equal(batches[0]["sharp"], batches[1]["sharp"])
    same = [np.array_equal(a, b) for a, b in zip(*(b["voxels"] for b in batches), strict=True)]
    assert not all(same)


def test_dropped_spikes_leave_the_frames_and_the_other_samples(reader: SampleReader) -> None:
    some = replace(reader, drop_spikes=0.5)
    draws = [Draw(epoch, 0) for epoch in range(16)]
    plain, dropped = (r.training(draws) for r in (reader, some))
    for name in ("blurred", "sharp"):
        np.testing.assert_array_equal(plain[name], dropped[name])
    gone = [not voxels.any() for voxels in dropped["voxels"]]
    assert 2 < sum(gone) < 14
    for is_gone, before, after in zip(gone, plain["voxels"], dropped["voxels"], strict=True):
        assert is_gone or np.array_equal(before, after)


SEEN = SpikeRepresentation(7, windows=(0.125, 1.5), exposure=True, interval=True)


@pytest.mark.parametrize("around", ["exposure", "target"])
def test_a_sample_shows_the_spikes_as_restoration_reads_them(
    prepare: Callable[..., Manifest], source: Path, tmp_path: Path, around: str
) -> None:
    """A clip whole; of a part, all frames whose windows do not reach beyond the part."""
    clip = open_dataset(source).clip("val", "c")
    represent = replace(SEEN, around=around)  # type: ignore[arg-type]
    expected = represent_frames(clip, 0, 4, represent)
    for frames, inside in ((4, slice(0, 4)), (3, slice(0, 2))):
        manifest = prepare(source, tmp_path / f"shards-{frames}", frames=frames)
        reader = SampleReader(
            shards=str(tmp_path / f"shards-{frames}"),
            split="val",
            fingerprint=manifest.fingerprint,
            crop=40,
            augment=False,
            spikes=represent,
            seed=5,
        )
        found = reader.whole(0)["voxels"][0]
        np.testing.assert_array_equal(found[inside], expected[inside])
        cropped, draw = reader.training([Draw(0, 0)])["voxels"][0], reader.augmentation(Draw(0, 0))
        rows, columns = draw.on_grid(1)
        np.testing.assert_array_equal(cropped, found[..., rows, columns])


def test_a_reversal_in_time_keeps_the_images_and_turns_everything_else(
    reader: SampleReader,
) -> None:
    """Windows of even length: one of odd length would lie half a step off its instant."""
    reader, seen = replace(reader, spikes=SEEN), set()
    for epoch in range(12):
        drawn = reader.augmentation(Draw(epoch, 0))
        plain = replace(drawn, reverse_time=False)
        whole = reader.whole(0)["voxels"][0]
        rows, columns = plain.on_grid(1)
        expected = plain.turned(whole[..., rows, columns], row_axis=2)
        if drawn.reverse_time:
            bins, images = expected[::-1, 6::-1], expected[::-1, 7:]
            expected = np.concatenate((bins, images), axis=1)
        found = reader.training([Draw(epoch, 0)])["voxels"][0]
        np.testing.assert_array_equal(found[:, :10], expected[:, :10])
        # Spikes fire at the end of a step, backwards at its beginning: intervals that end at a
        # frame's edge instead of a spike are one step longer or shorter.
        lit = expected[:, 10] > 0
        np.testing.assert_array_equal(found[:, 10] > 0, lit)
        lengths = [2 / images[:, 10][lit].astype(float) for images in (found, expected)]
        np.testing.assert_allclose(*lengths, atol=1.1)
        assert (abs(lengths[0] - lengths[1]) < 0.1).mean() > 0.9
        seen.add(drawn.reverse_time)
    assert seen == {False, True}
