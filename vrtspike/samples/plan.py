"""The plan of a preparation: which samples there are, and in which shard each goes.

In: a dataset folder and the settings of `prepare`. Out: a `Plan`, without a pixel read. Samples of
the training split (the first of `splits`) are clips of `frames` frames, `stride` apart, cut into
tiles of `tile` pixels if given. Those of the other splits are whole frames, in clips that do not
overlap, but for the last one, which ends at the last frame. A shard never spans two sequences.
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
    """Where a sample lies in its sequence; `top` and `left` are None for whole frames."""

    start: int
    top: int | None
    left: int | None

    def name(self, sequence: str) -> str:
        """Return the sample's name."""
        tile = "" if self.top is None else f"/{self.top}_{self.left}"
        return f"{sequence}/{self.start:06d}{tile}"


@dataclass(frozen=True)
class Job:
    """One sequence to prepare: its clip, the windows of each shard, and the shards' files."""

    clip: Clip
    shards: tuple[tuple[str, tuple[Window, ...]], ...]
    shape: Shape
    key: str


@dataclass
class Plan:
    """All jobs, and what was refused already when indexing."""

    source: str
    jobs: list[Job]
    refused: list[Refusal]
    inputs: str


def plan_jobs(source: Dataset | str | os.PathLike[str], settings: PrepareSettings) -> Plan:
    """Lay out the samples and shards of every sequence without reading a pixel."""
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
            parts = [
                tuple(windows[i : i + settings.shard_samples])
                for i in range(0, len(windows), settings.shard_samples)
            ]
            named = tuple((f"{split}/{number + i:05d}.parquet", p) for i, p in enumerate(parts))
            number += len(parts)
            info = clip.info.model_dump(mode="json")
            spans = [frame.spikes for frame in clip.frames]  # an align log decides them
            key = digest([VERSION, info, dataset.stamps(clip), spans])
            plan.jobs.append(Job(clip, named, shape, key))
    inputs = [
        (job.key, [(f, [w.name("") for w in ws]) for f, ws in job.shards]) for job in plan.jobs
    ]
    refusals = [refusal.model_dump() for refusal in plan.refused]
    plan.inputs = digest([settings.model_dump(mode="json"), inputs, refusals])
    return plan


def _windows(clip: Clip, settings: PrepareSettings, train: bool) -> tuple[list[Window], Shape]:
    """List the samples of a sequence, and their shape."""
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
        corners = [(top, left) for top in _cuts(height, tile) for left in _cuts(width, tile)]
        height = width = tile
        grid = (tile // coarse, tile // coarse) if info.spike else (0, 0)
    shape = Shape(t=length, h=height, w=width, hs=grid[0], ws=grid[1])
    return [Window(start, *corner) for start in starts for corner in corners], shape


def _cuts(extent: int, tile: int) -> list[int]:
    """Return where tiles start: side by side, the last one shifted back to the border."""
    return [min(start, extent - tile) for start in range(0, extent, tile)]


def _check_shape(clip: Clip, shape: Shape, first: Shape) -> None:
    """Refuse a sequence whose samples are of another size than those before it."""
    if shape != first:
        raise DataFormatError(
            "the sequence's frames or spikes are of another size than those of the first one",
            where=clip.where,
            got=f"samples of {shape.h}x{shape.w}, spikes {shape.hs}x{shape.ws}",
            expected=f"{first.h}x{first.w}, spikes {first.hs}x{first.ws}",
            fix="set data.tile for training sequences, or make a dataset of each size",
        )


def _camera(clip: Clip) -> Camera:
    """Return what the spike camera of a sequence sees."""
    spike = clip.info.spike
    return ("no spikes", "") if spike is None else (spike.color, spike.light)


def _check_camera(clip: Clip, first: Camera) -> None:
    """Refuse a sequence whose spike camera sees otherwise than that of the first one."""
    if (camera := _camera(clip)) != first:
        raise DataFormatError(
            "the sequence's spike camera is of another kind than that of the first one",
            where=clip.where,
            got=" ".join(camera).strip(),
            expected=" ".join(first).strip(),
            fix="make a dataset of each kind",
        )
