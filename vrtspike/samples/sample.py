"""Read training and validation samples from prepared shards.

Out: uint8 frames `blurred` and `sharp` `(b, t, 3, h, w)`, and float16 `voxels` `(b, t, c, hs, ws)`,
the spike representation (`vrtspike.spikes.representation`). One draw from (seed, epoch, sample)
crops and flips frames and spikes alike; only the bytes of the crop are unpacked. For a model
without spikes, no spikes are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from vrtspike.datasets.info import DatasetInfo
from vrtspike.samples.augment import Augmentation, draw_augmentation
from vrtspike.samples.order import Draw, sample_rng, spike_rng
from vrtspike.samples.shards import Sample, Split, read_manifest, read_sample, split_of
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.spikes.timeline import Timeline
from vrtspike.spikes.transform import draw_distortion

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class SampleReader:
    """Reads the samples of a split, with these settings; small enough to send to tasks."""

    shards: str
    split: str
    fingerprint: str
    crop: int | None
    augment: bool
    spikes: SpikeRepresentation | None
    """Representation of spikes for the model; None for a model without spikes."""
    seed: int
    threshold_factors: tuple[int, ...] = (1,)
    time_shift_steps: int = 0
    drop_spikes: float = 0.0
    lose_spikes: float = 0.0
    spike_noise: float = 0.0
    misregister: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Greatest shift (frame pixels), rotation (degrees) and relative change of size."""

    def training(self, draws: Iterable[Draw]) -> dict[str, NDArray[Any]]:
        """Read, crop and flip the samples of one micro-batch."""
        return stack_samples([self._augmented(draw) for draw in draws])

    def whole(self, index: int) -> dict[str, NDArray[Any]]:
        """Read one sample without augmentation, as a batch of one."""
        split, info = self._split()
        sample = read_sample(self.shards, split, index, spikes=self.spikes is not None)
        arrays: dict[str, NDArray[Any]] = {
            "blurred": _channels_first(sample.blurred),
            "sharp": _channels_first(sample.sharp),
        }
        if self.spikes is not None:
            rows, columns = slice(0, split.shape.hs), slice(0, split.shape.ws)
            arrays["voxels"] = self.spikes(
                sample.spike_bits(rows, columns),
                split.timeline(index),
                split.threshold(index),
                continuous=info.continuous,
            )
        return stack_samples([arrays])

    def augmentation(self, draw: Draw) -> Augmentation:
        """Draw the crop and flips of a sample."""
        split, info = self._split()
        assert self.crop is not None
        return draw_augmentation(
            sample_rng(self.seed, draw),
            split.shape.h,
            split.shape.w,
            self.crop,
            self.augment,
            grid=info.spike_scale or 1,
        )

    def _augmented(self, draw: Draw) -> dict[str, NDArray[Any]]:
        split, _ = self._split()
        sample = read_sample(self.shards, split, draw.index, spikes=self.spikes is not None)
        augmentation = self.augmentation(draw)
        arrays: dict[str, NDArray[Any]] = {
            "blurred": augmented_frames(sample.blurred, augmentation),
            "sharp": augmented_frames(sample.sharp, augmentation),
        }
        if self.spikes is not None:
            arrays["voxels"] = self._augmented_voxels(self.spikes, sample, draw, augmentation)
        return arrays

    def _augmented_voxels(
        self, represent: SpikeRepresentation, sample: Sample, draw: Draw, drawn: Augmentation
    ) -> NDArray[np.float16]:
        """Draw changes of a sample's spikes, and return the representation of its crop."""
        split, info = self._split()
        timeline, rng = split.timeline(draw.index), spike_rng(self.seed, draw)
        shift, rotate, scale = self.misregister
        change = draw_distortion(
            rng,
            self.threshold_factors,
            self.time_shift_steps,
            self.drop_spikes,
            shift=shift,
            rotate=rotate,
            scale=scale,
            noise=self.spike_noise,
            lost=self.lose_spikes,
        )
        grid = info.spike_scale or 1
        crop, shape = drawn.on_grid(grid), split.shape
        read = change.place.reading(crop, (shape.hs, shape.ws), grid)
        bits = change.place.apply(sample.spike_bits(*read), read, crop, grid)
        return augmented_voxels(
            represent,
            change.apply(bits, rng),
            timeline,
            split.threshold(draw.index) * change.threshold_factor,
            drawn,
            shift=change.shift,
            continuous=info.continuous,
        )

    def _split(self) -> tuple[Split, DatasetInfo]:
        return _cached_split(self.shards, self.split, self.fingerprint)


@lru_cache(maxsize=8)
def _cached_split(shards: str, name: str, fingerprint: str) -> tuple[Split, DatasetInfo]:
    """Read a manifest once per process and fingerprint, which differs for changed shards."""
    del fingerprint
    manifest = read_manifest(shards)
    return split_of(manifest, name, shards), manifest.info


def augmented_frames(frames: Frames, draw: Augmentation) -> Frames:
    """Crop and flip frames (t, h, w, 3); return (t, 3, n, n), a view of a copy of the crop."""
    # We copy before the flips, because a flipped array is copied pixel by pixel, not row by row.
    crop = np.ascontiguousarray(draw.window(frames))
    turned: Frames = draw.turned(_channels_first(crop), row_axis=2)
    return turned


def augmented_voxels(
    represent: SpikeRepresentation,
    bits: NDArray[np.bool_],
    timeline: Timeline,
    threshold: float,
    draw: Augmentation,
    *,
    shift: int = 0,
    continuous: bool = True,
) -> NDArray[np.float16]:
    """Represent the spikes of a crop (t, s, m, m) and flip the result, (t, c, m, m).

    Flipping the voxels is cheaper than flipping the spikes; only a reversal in time must come
    before.
    """
    if draw.reverse_time:
        bits, timeline, shift = bits[::-1, ::-1], timeline.reversed(), -shift
    voxels = represent(bits, timeline, threshold, shift=shift, continuous=continuous)
    turned: NDArray[np.float16] = draw.turned(voxels, row_axis=2)
    return turned


def _channels_first(frames: Frames) -> Frames:
    """Return frames with the colour axis before the pixel axes."""
    return rearrange(frames, "t h w c -> t c h w")


def stack_samples(samples: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Copy samples into one batch in C order; `np.stack` alone would keep transposed strides."""
    batch = {}
    for name, first in samples[0].items():
        batch[name] = np.empty((len(samples), *first.shape), first.dtype)
        np.stack([sample[name] for sample in samples], out=batch[name])
    return batch
