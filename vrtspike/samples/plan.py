"""The plan of a preparation: the list of samples, and the shard of each.

In: a dataset folder and the settings of `prepare`. Out: a `Plan`; no pixels are read. Samples of
the training split (the first of `splits`) are clips of `frames` frames, `stride` apart, cut into
tiles of `tile` pixels if that is set. Samples of the other splits are clips of whole frames, which
do not overlap, except that the last clip ends at the last frame. A shard has samples of only one
sequence.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from vrtspike.datasets.clip import Clip
from vrtspike.datasets.index import Dataset, open_dataset
from vrtspike.errors import DataFormatError, VrtSpikeError
from vrtspike.samples.shards import VERSION, PrepareSettings, Refusal, Shape, digest

Camera = tuple[str, str]
"""Colour and light of a spike camera."""


@dataclass(frozen=True)
class Window:
    """The first frame and the tile of a sample; `top` and `left` are None for whole frames."""

    start: int
    top: int | None
    left: int | None

    def name(self, sequence: str) -> str:
        """Return the name of the sample, unique in its split."""
        tile = "" if self.top is None else f"/{self.top}_{self.left}"
        return f"{sequence}/{self.start:06d}{tile}"


@dataclass(frozen=True)
class Job:
    """One sequence to prepare: its clip, and the file and windows of each shard."""

    clip: Clip
    shards: tuple[tuple[str, tuple[Window, ...]], ...]
    shape: Shape
    key: str


@dataclass
class Plan:
    """All jobs, and the sequences that were refused while indexing."""

    source: str
    jobs: list[Job]
    refused: list[Refusal]
    inputs: str


def plan_jobs(source: Dataset | str | os.PathLike[str], settings: PrepareSettings) -> Plan:
    """Plan the samples and shards of every sequence without reading pixels."""
    dataset = open_dataset(source, settings.layout)
    plan = Plan(str(dataset.folder), [], [], "")
    shapes: dict[str, Shape] = {}
    camera: Camera | None = None
    for split in settings.splits:
        number = 0
        for sequence in dataset.sequences(split):
            try:
                clip = dataset.clip(split, sequence)
                windows, shape = _windows(clip, settings, split == settings.splits[0])
                _check_shape(clip, shape, shapes.setdefault(split, shape))
                camera = camera or _camera(clip)
                _check_camera(clip, camera)
            except VrtSpikeError as error:
                plan.refused.append(Refusal(sequence=f"{split}/{sequence}", reason=str(error)))
                continue
            shards = [
                tuple(windows[i : i + settings.shard_samples])
                for i in range(0, len(windows), settings.shard_samples)
            ]
            named_shards = tuple(
                (f"{split}/{number + i:05d}.parquet", p) for i, p in enumerate(shards)
            )
            number += len(shards)
            info = clip.info.model_dump(mode="json")
            spans = [frame.spikes for frame in clip.frames]  # an align log may change them
            key = digest([VERSION, info, dataset.stamps(clip), spans])
            plan.jobs.append(Job(clip, named_shards, shape, key))
    inputs = [
        (job.key, [(f, [w.name("") for w in ws]) for f, ws in job.shards]) for job in plan.jobs
    ]
    refusals = [refusal.model_dump() for refusal in plan.refused]
    plan.inputs = digest([settings.model_dump(mode="json"), inputs, refusals])
    return plan


def _windows(clip: Clip, settings: PrepareSettings, train: bool) -> tuple[list[Window], Shape]:
    """List the samples of a sequence, and return their shape."""
    count, length, info = len(clip.frames), settings.frames, clip.info
    if count < length:
        raise DataFormatError(
            "the sequence is shorter than a sample",
            where=clip.where,
            got=f"{count} frames",
            expected=f"at least {length} (data.frames)",
        )
    if train:
        starts = list(range(0, count - length + 1, settings.stride))
    else:
        starts = [min(start, count - length) for start in range(0, count, length)]
    height, width, tile = info.frame.height, info.frame.width, settings.tile
    corners: list[tuple[int | None, int | None]] = [(None, None)]
    scale = info.spike_scale
    grid = info.spike.grid if info.spike else (0, 0)
    if train and tile is not None:
        coarse = scale or (1 if info.spike is None else None)
        if coarse is None or tile > min(height, width) or tile % coarse:
            raise DataFormatError(
                "tiles do not fit the frames",
                where=clip.where,
                got=f"tile {tile}, frames {height}x{width}, spikes {grid[0]}x{grid[1]}",
                expected="a multiple of the spike grid's coarseness, at most the frame",
                fix="change data.tile (null: whole frames)",
            )
        corners = [
            (top, left) for top in _tile_starts(height, tile) for left in _tile_starts(width, tile)
        ]
        height = width = tile
        grid = (tile // coarse, tile // coarse) if info.spike else (0, 0)
    shape = Shape(t=length, h=height, w=width, hs=grid[0], ws=grid[1])
    return [Window(start, *corner) for start in starts for corner in corners], shape


def _tile_starts(extent: int, tile: int) -> list[int]:
    """Return the starts of tiles side by side; the last tile is moved back to end at the border."""
    return [min(start, extent - tile) for start in range(0, extent, tile)]


def _check_shape(clip: Clip, shape: Shape, first: Shape) -> None:
    """Refuse a sequence whose samples differ in size from those of the first sequence."""
    if shape != first:
        raise DataFormatError(
            "the sequence's frames or spikes are of another size than those of the first one",
            where=clip.where,
            got=f"samples of {shape.h}x{shape.w}, spikes {shape.hs}x{shape.ws}",
            expected=f"{first.h}x{first.w}, spikes {first.hs}x{first.ws}",
            fix="set data.tile for training sequences, or make a dataset of each size",
        )


def _camera(clip: Clip) -> Camera:
    """Return the colour and light of a sequence's spike camera."""
    spike = clip.info.spike
    return ("no spikes", "") if spike is None else (spike.color, spike.light)


def _check_camera(clip: Clip, first: Camera) -> None:
    """Refuse a sequence whose spike camera differs in colour or light from the first one."""
    if (camera := _camera(clip)) != first:
        raise DataFormatError(
            "the sequence's spike camera is of another kind than that of the first one",
            where=clip.where,
            got=" ".join(camera).strip(),
            expected=" ".join(first).strip(),
            fix="make a dataset of each kind",
        )
