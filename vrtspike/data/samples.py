"""From prepared shards to what the model is trained and validated on.

Out: uint8 frames (b, t, 3, h, w), spike counts (b, t, k, hs, ws) of the exposure and the steps of
their bins (b, k), which differ between sequences of different exposure; over n where a sample's
threshold is n times that of the first sequence, so that rates compare. Counts become floats where
the model is (`normalize_voxels`), a quarter of the bytes on the way there. One draw of (seed,
epoch, sample) crops and flips frames and spikes alike; only the bytes of the crop are unpacked,
and only the crop is voxelized. Without bins (a model without spikes) no spike is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from vrtspike.data.alignment import Timeline
from vrtspike.data.augment import Augmentation, draw_augmentation
from vrtspike.data.distort import draw_distortion, raise_threshold
from vrtspike.data.info import DatasetInfo
from vrtspike.data.order import Draw, sample_rng, spike_rng
from vrtspike.data.shards import Split, read_manifest, read_sample, split_of
from vrtspike.data.voxelize import bin_steps, voxelize

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class SampleReader:
    """What decides a sample besides (seed, epoch, index); small enough to send to a task."""

    shards: str
    split: str
    fingerprint: str
    crop: int | None
    augment: bool
    bins: int | None
    seed: int
    threshold_factors: tuple[int, ...] = (1,)
    time_shift_steps: int = 0
    drop_spikes: float = 0.0

    def training(self, draws: Iterable[Draw]) -> dict[str, NDArray[Any]]:
        """Read, crop, flip and voxelize the samples of one micro-batch."""
        return stack_samples([self._augmented(draw) for draw in draws])

    def whole(self, index: int) -> dict[str, NDArray[Any]]:
        """Read one sample as it is, as a batch of one."""
        split, _ = self._split()
        sample = read_sample(self.shards, split, index, spikes=self.bins is not None)
        shape = split.shape
        arrays: dict[str, NDArray[Any]] = {
            "blurred": _planes(sample.blurred),
            "sharp": _planes(sample.sharp),
        }
        if self.bins is not None:
            rows, columns = slice(0, shape.hs), slice(0, shape.ws)
            timeline = split.timeline(index)
            bits = sample.spike_bits(slice(*timeline.exposure), rows, columns)
            voxels = _voxels(bits, self.bins, timeline)
            arrays |= self._compared(voxels, index)
        return stack_samples([arrays])

    def augmentation(self, draw: Draw) -> Augmentation:
        """Return how a sample is cropped and turned when it is drawn."""
        split, info = self._split()
        assert self.crop is not None
        return draw_augmentation(
            sample_rng(self.seed, draw),
            split.shape.h,
            split.shape.w,
            self.crop,
            self.augment,
            grid=info.spike_scale or 1,
            reversible=info.spike is None or split.timeline(draw.index).reversible,
        )

    def _augmented(self, draw: Draw) -> dict[str, NDArray[Any]]:
        split, info = self._split()
        sample = read_sample(self.shards, split, draw.index, spikes=self.bins is not None)
        augmentation = self.augmentation(draw)
        arrays: dict[str, NDArray[Any]] = {
            "blurred": augmented_frames(sample.blurred, augmentation),
            "sharp": augmented_frames(sample.sharp, augmentation),
        }
        if self.bins is not None:
            timeline, rng = split.timeline(draw.index), spike_rng(self.seed, draw)
            drawn = draw_distortion(
                rng, timeline, self.threshold_factors, self.time_shift_steps, self.drop_spikes
            )
            rows, columns = augmentation.on_grid(info.spike_scale or 1)
            bits = sample.spike_bits(drawn.window(timeline), rows, columns)
            bits = raise_threshold(bits, drawn.threshold_factor, rng)
            if drawn.dropped:
                bits = np.zeros_like(bits)
            voxels = augmented_voxels(bits, self.bins, timeline, augmentation)
            arrays |= self._compared(voxels, draw.index, drawn.threshold_factor)
        return arrays

    def _compared(
        self, voxels: dict[str, NDArray[Any]], index: int, factor: int = 1
    ) -> dict[str, NDArray[Any]]:
        """Divide the steps by the sample's threshold over that of the first sequence."""
        split, info = self._split()
        ratio = factor * split.threshold(index) / info.camera.threshold
        return voxels | {"steps": voxels["steps"] / ratio}

    def _split(self) -> tuple[Split, DatasetInfo]:
        return _known_split(self.shards, self.split, self.fingerprint)


@lru_cache(maxsize=8)
def _known_split(shards: str, name: str, fingerprint: str) -> tuple[Split, DatasetInfo]:
    """Read a manifest once a process; the fingerprint tells changed shards apart."""
    del fingerprint
    manifest = read_manifest(shards)
    return split_of(manifest, name, shards), manifest.info


def augmented_frames(frames: Frames, draw: Augmentation) -> Frames:
    """Crop and turn frames (t, h, w, 3) into (t, 3, n, n); a view of the crop."""
    # The crop is copied as it lies, row by row: turned it would go pixel by pixel.
    crop = np.ascontiguousarray(draw.window(frames))
    turned: Frames = draw.turned(_planes(crop), row_axis=2)
    return turned


def augmented_voxels(
    bits: NDArray[np.bool_], bins: int, timeline: Timeline, draw: Augmentation
) -> dict[str, NDArray[Any]]:
    """Voxelize the exposure's spikes of a crop (t, s, m, m), turned as the draw says.

    A reversal in time must come before the bins, which differ in their steps; to turn the counts
    instead of the spikes costs less.
    """
    arrays = _voxels(bits[::-1, ::-1] if draw.reverse_time else bits, bins, timeline)
    return arrays | {"counts": draw.turned(arrays["counts"], row_axis=2)}


def _voxels(bits: NDArray[np.bool_], bins: int, timeline: Timeline) -> dict[str, NDArray[Any]]:
    """Voxelize the frames of a sample in one go: (t, s, h, w) -> counts (t, k, h, w)."""
    counts = voxelize(rearrange(bits, "t s h w -> s (t h) w"), bins)
    return {
        "counts": rearrange(counts, "k (t h) w -> t k h w", t=len(bits)),
        "steps": bin_steps(timeline.exposure_steps, bins).astype(np.float32),
    }


def _planes(frames: Frames) -> Frames:
    """Put the colours before the pixels."""
    return rearrange(frames, "t h w c -> t c h w")


def stack_samples(samples: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Copy samples into one batch, in C order: `np.stack` would take over turned axes."""
    batch = {}
    for name, first in samples[0].items():
        batch[name] = np.empty((len(samples), *first.shape), first.dtype)
        np.stack([sample[name] for sample in samples], out=batch[name])
    return batch
