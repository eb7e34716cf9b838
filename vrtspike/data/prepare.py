"""Dataset folder -> Parquet shards of fixed-shape samples: one Ray Data task a sequence.

The samples of every sequence follow from the dataset's index alone, so each shard has its name and
content before any task runs. A shard never spans two sequences: refusing one leaves the others'
files as they are, and the same dataset gives the same bytes, however the tasks were scheduled or
how often the job was killed. Beside each shard lies a note of what it was made from; a shard whose
note and SHA-256 are right is not written again. The manifest comes last.

Samples of the training split (the first of `splits`) are clips of `frames` frames, `stride` apart,
cut into tiles of `tile` pixels if given. Those of the other splits are whole frames, in clips that
do not overlap, but for the last one, which ends at the last frame.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import ray.data
from numpy.typing import NDArray

from vrtspike.data.alignment import Timeline
from vrtspike.data.clips import Clip, read_frames, read_spikes
from vrtspike.data.dataset import open_dataset
from vrtspike.data.pipeline import quiet_ray_data
from vrtspike.data.shards import (
    MANIFEST,
    VERSION,
    Manifest,
    PrepareSettings,
    Refusal,
    SampleRef,
    Shape,
    ShardFile,
    Split,
    digest,
    encode_shard,
    pack_spikes,
    read_manifest,
)
from vrtspike.errors import DataFormatError, VrtSpikeError
from vrtspike.settings import DataSettings, LayoutName
from vrtspike.storage import Folder

logger = logging.getLogger(__name__)

Report = Callable[[int, int], None]
_NO_SPIKES = np.zeros((1, 0, 0, 0), np.bool_)


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
    timeline: Timeline | None
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


def prepare_data(settings: DataSettings, progress: Report | None = None) -> Manifest:
    """Prepare the training and validation splits that a configuration's data section names."""
    return prepare(
        settings.source,
        settings.shards,
        layout=settings.layout,
        frames=settings.frames,
        stride=settings.stride,
        tile=settings.tile,
        shard_samples=settings.shard_samples,
        splits=(settings.train_split, settings.val_split),
        allow_refused=settings.allow_refused,
        progress=progress,
    )


def prepare(
    source: str | os.PathLike[str],
    shards: str | os.PathLike[str],
    *,
    layout: LayoutName = "vrtspike",
    frames: int,
    stride: int,
    tile: int | None,
    shard_samples: int,
    splits: tuple[str, ...],
    allow_refused: int = 0,
    progress: Report | None = None,
) -> Manifest:
    """Write the shards of a dataset folder, or find them already there; return their manifest."""
    settings = PrepareSettings(
        layout=layout,
        frames=frames,
        stride=stride,
        tile=tile,
        shard_samples=shard_samples,
        splits=tuple(dict.fromkeys(splits)),
    )
    folder = Folder.at(shards)
    if not folder.remote and folder.path.exists() and not folder.path.is_dir():
        raise DataFormatError("the place for the shards is not a folder", where=folder)
    plan = plan_jobs(source, settings)
    tell = progress or (lambda done, total: None)
    present = _present(folder, plan.inputs)
    if present is not None:
        tell(len(plan.jobs), len(plan.jobs))
        if present.source != plan.source:
            present = present.model_copy(update={"source": plan.source})
            _write_manifest(folder, present)
        return present
    folder.remove(MANIFEST)
    tell(0, len(plan.jobs))
    written: dict[str, list[ShardFile]] = {}
    refused = list(plan.refused)
    for done, result in enumerate(_run(plan.jobs, folder), 1):
        if result["reason"]:
            refused.append(Refusal(sequence=result["sequence"], reason=result["reason"]))
        else:
            files = [ShardFile.model_validate(file) for file in json.loads(result["files"])]
            written[result["sequence"]] = files
        tell(done, len(plan.jobs))
    _check_refusals(refused, allow_refused, plan.source)
    refused.sort(key=lambda refusal: refusal.sequence)
    manifest = _manifest(plan, settings, written, refused)
    _remove_strays(folder, manifest)
    _write_manifest(folder, manifest)
    return manifest


def plan_jobs(source: str | os.PathLike[str], settings: PrepareSettings) -> Plan:
    """Lay out the samples and shards of every sequence without reading a pixel."""
    dataset = open_dataset(source, settings.layout)
    plan = Plan(str(dataset.folder), [], [], "")
    shapes: dict[str, Shape] = {}
    for split in settings.splits:
        number = 0
        for sequence in dataset.sequences(split):
            try:
                clip = dataset.clip(split, sequence)
                windows, shape = _windows(clip, settings, split == settings.splits[0])
                _check_shape(clip, shape, shapes.setdefault(split, shape))
            except VrtSpikeError as error:
                plan.refused.append(Refusal(sequence=f"{split}/{sequence}", reason=str(error)))
                continue
            parts = [
                tuple(windows[i : i + settings.shard_samples])
                for i in range(0, len(windows), settings.shard_samples)
            ]
            named = tuple((f"{split}/{number + i:05d}.parquet", p) for i, p in enumerate(parts))
            number += len(parts)
            key = digest([VERSION, clip.info.model_dump(mode="json"), dataset.stamps(clip)])
            timeline = clip.info.timeline if clip.info.spike else None
            plan.jobs.append(Job(clip, timeline, named, shape, key))
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


def _present(shards: Folder, inputs: str) -> Manifest | None:
    """Return the manifest that is there, if it was made from the same inputs and its files hold."""
    if shards.size(MANIFEST) is None:
        return None
    try:
        manifest = read_manifest(shards)
    except DataFormatError as error:
        logger.warning("preparing again: %s", error)
        return None
    return manifest if manifest.inputs == inputs else None


def _run(jobs: list[Job], shards: Folder) -> Iterator[dict[str, Any]]:
    """Prepare all sequences in Ray Data tasks; yield each one's result as it comes."""
    if not jobs:
        return
    quiet_ray_data()
    items = [{"number": number} for number in range(len(jobs))]
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map(
        partial(_prepare_numbered, jobs=jobs, shards=shards.absolute())
    )
    dataset.context.enable_progress_bars = False
    yield from dataset.iter_rows()


def _prepare_numbered(row: dict[str, Any], jobs: list[Job], shards: Folder) -> dict[str, Any]:
    """Prepare one sequence of the list; its own faults are a result, not a failure of the job."""
    job = jobs[int(row["number"])]
    name = f"{job.clip.split}/{job.clip.sequence}"
    try:
        files = prepare_sequence(job, shards)
    except VrtSpikeError as error:
        return {"sequence": name, "files": "[]", "reason": str(error)}
    dumped = json.dumps([file.model_dump() for file in files])
    return {"sequence": name, "files": dumped, "reason": ""}


def prepare_sequence(job: Job, shards: Folder) -> list[ShardFile]:
    """Write the shards of one sequence that are not there yet."""
    known: dict[str, ShardFile] = {}
    keys: dict[str, str] = {}
    for file, windows in job.shards:
        names = [window.name(job.clip.sequence) for window in windows]
        keys[file] = digest([job.key, job.shape.model_dump(), names])
        if (noted := _noted(shards, file, keys[file])) is not None:
            known[file] = noted
    if len(known) < len(job.shards):
        with job.clip.local() as clip:
            frames = _RecentFrames(clip)
            for file, windows in job.shards:
                if file not in known:
                    content = encode_shard([_row(job, window, frames) for window in windows])
                    shards.write(file, content)
                    known[file] = ShardFile(
                        file=file,
                        rows=len(windows),
                        bytes=len(content),
                        sha256=hashlib.sha256(content).hexdigest(),
                        timeline=job.timeline,
                    )
                    note = {"key": keys[file], **known[file].model_dump(mode="json")}
                    shards.write(_note_of(file), json.dumps(note).encode())
    return [known[file] for file, _ in job.shards]


class _RecentFrames:
    """Read each frame once while windows move forward, and hold no more than one window."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self._held: dict[int, tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = {}

    def window(self, start: int, stop: int) -> tuple[NDArray[Any], ...]:
        """Return blurred frames, sharp frames and spikes of `[start, stop)`."""
        self._held = {i: held for i, held in self._held.items() if i >= start}
        for i in range(start, stop):
            if i not in self._held:
                spikes = read_spikes(self._clip, i, i + 1) if self._clip.info.spike else _NO_SPIKES
                self._held[i] = (
                    read_frames(self._clip, "blurred", i, i + 1),
                    read_frames(self._clip, "sharp", i, i + 1),
                    spikes,
                )
        parts = [self._held[i] for i in range(start, stop)]
        return tuple(np.concatenate(kind) for kind in zip(*parts, strict=True))


def _note_of(file: str) -> str:
    """Return the name of the note beside a shard."""
    return str(PurePosixPath(file).with_suffix(".json"))


def _noted(shards: Folder, file: str, key: str) -> ShardFile | None:
    """Return what the note beside a shard says, if it is of these inputs and the file verifies."""
    try:
        if shards.size(_note_of(file)) is None:
            return None
        found = json.loads(shards.read(_note_of(file)))
        if found.pop("key") != key:
            return None
        known = ShardFile.model_validate(found)
        whole = shards.size(file) == known.bytes and shards.sha256(file) == known.sha256
    except (OSError, ValueError, KeyError, AttributeError, DataFormatError):
        return None
    return known if whole and known.file == file else None


def _row(job: Job, window: Window, frames: _RecentFrames) -> dict[str, Any]:
    """Cut one sample out of a sequence."""
    shape, scale = job.shape, job.clip.info.spike_scale or 1
    top, left = window.top or 0, window.left or 0
    grid = (slice(None), slice(top // scale, top // scale + shape.hs))
    pixels = (slice(None), slice(top, top + shape.h), slice(left, left + shape.w))
    columns = slice(left // scale, left // scale + shape.ws)
    blurred, sharp, spikes = frames.window(window.start, window.start + shape.t)
    return {
        "sample": window.name(job.clip.sequence),
        "sequence": job.clip.sequence,
        "start": window.start,
        "blurred": blurred[pixels].tobytes(),
        "sharp": sharp[pixels].tobytes(),
        "spikes": pack_spikes(spikes[:, *grid, columns]).tobytes(),
    }


def _remove_strays(shards: Folder, manifest: Manifest) -> None:
    """Delete shards of earlier settings that the manifest does not know."""
    known = {shard.file for split in manifest.splits.values() for shard in split.shards}
    for file in shards.listing():
        name = PurePosixPath(file)
        ours = len(name.parts) == 2 and name.stem.isdigit() and name.suffix in (".parquet", ".json")
        if ours and str(name.with_suffix(".parquet")) not in known:
            shards.remove(file)


def _write_manifest(shards: Folder, manifest: Manifest) -> None:
    shards.write(MANIFEST, (manifest.model_dump_json() + "\n").encode())


def _check_refusals(refused: list[Refusal], allowed: int, source: str) -> None:
    """Name the refused sequences, or fail when there are more than the user accepts."""
    if len(refused) > allowed:
        first = refused[0]
        raise DataFormatError(
            f"{len(refused)} sequences cannot be prepared, first {first.sequence}: {first.reason}",
            where=source,
            expected=f"at most {allowed} (data.allow_refused)",
            fix="repair or remove them (`vrtspike validate` lists all), or raise the limit",
        )
    for refusal in refused:
        logger.warning("refused %s: %s", refusal.sequence, refusal.reason)


def _manifest(
    plan: Plan,
    settings: PrepareSettings,
    written: dict[str, list[ShardFile]],
    refused: list[Refusal],
) -> Manifest:
    """Put together what was written; every split must have samples of one shape."""
    splits: dict[str, Split] = {}
    for name in settings.splits:
        jobs = [
            job
            for job in plan.jobs
            if job.clip.split == name and f"{name}/{job.clip.sequence}" in written
        ]
        if not jobs:
            raise DataFormatError(f"no sequence of split {name!r} could be prepared")
        files: list[ShardFile] = []
        samples: list[SampleRef] = []
        for job in jobs:
            for file, (_, windows) in zip(
                written[f"{name}/{job.clip.sequence}"], job.shards, strict=True
            ):
                samples += [
                    SampleRef(id=w.name(job.clip.sequence), shard=len(files), row=row)
                    for row, w in enumerate(windows)
                ]
                files.append(file)
        splits[name] = Split(shape=jobs[0].shape, shards=tuple(files), samples=tuple(samples))
    info = plan.jobs[0].clip.info
    content = [settings.model_dump(mode="json"), info.model_dump(mode="json")]
    contents = [[file.sha256 for file in split.shards] for split in splits.values()]
    return Manifest(
        version=VERSION,
        source=plan.source,
        settings=settings,
        inputs=plan.inputs,
        fingerprint=digest([content, contents]),
        info=info,
        splits=splits,
        refused=tuple(refused),
    )
