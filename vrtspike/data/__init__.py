"""Datasets of blurred frames, sharp frames and spikes: reading, alignment, voxels, samples."""

from __future__ import annotations

from vrtspike.data.alignment import Timeline
from vrtspike.data.augment import Augmentation, draw_augmentation
from vrtspike.data.dat import SpikeStream, write_dat
from vrtspike.data.dataset import (
    Clip,
    Dataset,
    DatasetInfo,
    open_dataset,
    read_frames,
    read_spikes,
)
from vrtspike.data.reconstruct import tfi, tfp
from vrtspike.data.voxelize import bin_steps, normalize_voxels, voxelize

__all__ = [
    "Augmentation",
    "Clip",
    "Dataset",
    "DatasetInfo",
    "SpikeStream",
    "Timeline",
    "bin_steps",
    "draw_augmentation",
    "normalize_voxels",
    "open_dataset",
    "read_frames",
    "read_spikes",
    "tfi",
    "tfp",
    "voxelize",
    "write_dat",
]
