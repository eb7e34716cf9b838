"""From prepared shards to what the model is trained and validated on.

Out: uint8 frames (b, t, 3, h, w) and spike counts (b, t, k, hs, ws) of the exposure; they become
floats where the model is (`normalize_voxels`), a quarter of the bytes on the way there. One draw of
(seed, epoch, sample) crops and flips frames and spikes alike; only the bytes of the crop are
unpacked, and only the crop is voxelized. Without bins (a model without spikes) no spike is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from vrtspike.data.augment import Augmentation, draw_augmentation
from vrtspike.data.dataset import DatasetInfo
from vrtspike.data.order import Draw, sample_rng
from vrtspike.data.shards import Sample, Split, read_manifest, read_sample, split_of
from vrtspike.data.voxelize import voxelize

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

    def training(self, draws: Iterable[Draw]) -> dict[str, NDArray[Any]]:
        """Read, crop, flip and voxelize the samples of one micro-batch."""
        return _stack([self._augmented(draw) for draw in draws])

    def whole(self, index: int) -> dict[str, NDArray[Any]]:
        """Read one sample as it is, as a batch of one."""
        split, info = self._split()
        sample = read_sample(Path(self.shards), split, index, spikes=self.bins is not None)
        shape = split.shape
        arrays = {"blurred": _planes(sample.blurred), "sharp": _planes(sample.sharp)}
        if self.bins is not None:
            rows, columns = slice(0, shape.hs), slice(0, shape.ws)
            bits = sample.spike_bits(slice(*info.exposure), rows, columns)
            arrays["counts"] = _counts(bits, self.bins)
        return _stack([arrays])

    def _augmented(self, draw: Draw) -> dict[str, NDArray[Any]]:
        split, info = self._split()
        sample = read_sample(Path(self.shards), split, draw.index, spikes=self.bins is not None)
        assert self.crop is not None
        augmentation = draw_augmentation(
            sample_rng(self.seed, draw),
            split.shape.h,
            split.shape.w,
            self.crop,
            self.augment,
            grid=info.spike_scale or 1,
            reversible=info.timeline.reversible,
        )
        arrays = {
            "blurred": _planes(augmentation.frames(sample.blurred)),
            "sharp": _planes(augmentation.frames(sample.sharp)),
        }
        if self.bins is not None:
            arrays["counts"] = _counts(_cropped_bits(sample, info, augmentation), self.bins)
        return arrays

    def _split(self) -> tuple[Split, DatasetInfo]:
        return _known_split(self.shards, self.split, self.fingerprint)


@lru_cache(maxsize=8)
def _known_split(shards: str, name: str, fingerprint: str) -> tuple[Split, DatasetInfo]:
    """Read a manifest once a process; the fingerprint tells changed shards apart."""
    del fingerprint
    manifest = read_manifest(Path(shards))
    return split_of(manifest, name, Path(shards)), manifest.info


def _cropped_bits(sample: Sample, info: DatasetInfo, draw: Augmentation) -> NDArray[np.bool_]:
    """Unpack the spikes of a crop and its exposure, and flip them as the frames."""
    grid = info.spike_scale or 1
    top, left, size = draw.top // grid, draw.left // grid, draw.size // grid
    bits = sample.spike_bits(
        slice(*info.exposure), slice(top, top + size), slice(left, left + size)
    )
    steps = info.timeline.exposure_steps
    here = replace(draw, top=0, left=0)
    turned: NDArray[np.bool_] = here.spikes(bits, exposure=(0, steps), grid=grid)
    return turned


def _counts(bits: NDArray[np.bool_], bins: int) -> NDArray[Any]:
    """Voxelize the frames of a sample in one go: (t, s, h, w) -> (t, k, h, w)."""
    t = len(bits)
    counts = voxelize(rearrange(bits, "t s h w -> s (t h) w"), bins)
    return rearrange(counts, "k (t h) w -> t k h w", t=t)


def _planes(frames: Frames) -> Frames:
    """Put the colours before the pixels."""
    return rearrange(frames, "t h w c -> t c h w")


def _stack(samples: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
