"""Datasets of blurred frames, sharp frames and spikes: reading, alignment, voxels, samples."""

from __future__ import annotations

from vrtspike.data.alignment import Timeline
from vrtspike.data.augment import Augmentation, draw_augmentation
from vrtspike.data.clips import Clip, read_frames, read_spikes
from vrtspike.data.convert_stream import write_stream
from vrtspike.data.dat import write_dat
from vrtspike.data.dataset import Dataset, open_dataset
from vrtspike.data.info import DatasetInfo
from vrtspike.data.reconstruct import tfi, tfp
from vrtspike.data.stream import SpikeStream
from vrtspike.data.voxelize import bin_steps, normalize_voxels, voxelize, voxelize_stream

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
    "voxelize_stream",
    "write_dat",
    "write_stream",
]
