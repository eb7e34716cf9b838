"""Write a dataset folder as Parquet shards of fixed-shape samples, in one Ray Data task a sequence.

The index of the dataset decides the name and content of each shard before any task runs. A shard
has samples of only one sequence, so a refused sequence does not change the other files. The same
dataset gives the same bytes, for any order of tasks and any number of restarts. Beside each shard
there is a note of its inputs. A shard is not written again if its note and its SHA-256 match. The
manifest is written last.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import ray.data
from numpy.typing import NDArray
from pydantic import ValidationError

from vrtspike.config.choices import LayoutName
from vrtspike.config.data import DataSettings
from vrtspike.datasets.clip import Clip, read_frames, read_spikes
from vrtspike.datasets.index import Dataset
from vrtspike.errors import ConfigError, DataFormatError, ResourceError
from vrtspike.samples.plan import Job, Plan, Window, plan_jobs
from vrtspike.samples.shards import (
    MANIFEST,
    VERSION,
    Manifest,
    PrepareSettings,
    Refusal,
    SampleRef,
    ShardFile,
    Split,
    digest,
    encode_shard,
    pack_spikes,
    read_manifest,
)
from vrtspike.samples.stream import quiet_ray_data
from vrtspike.storage.folder import Folder
from vrtspike.storage.json_text import parse_json

logger = logging.getLogger(__name__)

Report = Callable[[int, int], None]
SHARD_NAME = re.compile(r"[^/]+/[0-9]{5,}\.parquet")
"""File names of our shards."""
_NO_SPIKES = np.zeros((1, 0, 0, 0), np.bool_)


def prepare_data(
    settings: DataSettings, progress: Report | None = None, *, dataset: Dataset | None = None
) -> Manifest:
    """Prepare the training and validation splits of a configuration's data section.

    `dataset` is the opened `data.source`; if it is None, it is opened here.
    """
    return prepare(
        dataset or settings.source,
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
    source: Dataset | str | os.PathLike[str],
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
    """Write the shards of a dataset folder, unless they exist already, and return their manifest.

    `progress` is called with the number of sequences done and their total. Raise DataFormatError if
    more than `allow_refused` sequences cannot be prepared.
    """
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
    report = progress or (lambda done, total: None)
    present = _existing_manifest(folder, plan)
    if present is not None:
        report(len(plan.jobs), len(plan.jobs))
        if present.source != plan.source:
            present = present.model_copy(update={"source": plan.source})
            _write_manifest(folder, present)
        return present
    _check_refusals(plan, plan.refused, allow_refused)
    folder.remove(MANIFEST)
    report(0, len(plan.jobs))
    written: dict[str, list[ShardFile]] = {}
    refused = list(plan.refused)
    for done, result in enumerate(_run(plan.jobs, folder), 1):
        if result["reason"]:
            refused.append(Refusal(sequence=result["sequence"], reason=result["reason"]))
        else:
            files = [ShardFile.model_validate(file) for file in json.loads(result["files"])]
            written[result["sequence"]] = files
        report(done, len(plan.jobs))
    _check_refusals(plan, refused, allow_refused)
    for refusal in refused:
        logger.warning("refused %s: %s", refusal.sequence, refusal.reason)
    refused.sort(key=lambda refusal: refusal.sequence)
    manifest = _manifest(plan, settings, written, refused)
    _remove_old_shards(folder, manifest)
    _write_manifest(folder, manifest)
    return manifest


def _existing_manifest(shards: Folder, plan: Plan) -> Manifest | None:
    """Return the existing manifest if its inputs are the same and its files are undamaged.

    If tasks refused sequences when it was made, return None, to try them again. In an object store
    the content of files is not checked, because the store does that itself.
    """
    if shards.size(MANIFEST) is None:
        return None
    try:
        manifest = read_manifest(shards)
    except DataFormatError as error:
        logger.warning("preparing again: %s", error)
        return None
    if manifest.inputs != plan.inputs or len(manifest.refused) != len(plan.refused):
        return None
    files = [file for split in manifest.splits.values() for file in split.shards]
    for file in () if shards.remote else files:
        if shards.sha256(file.file) != file.sha256:
            logger.warning("preparing again: %s is damaged", shards.name(file.file))
            return None
    return manifest


def _run(jobs: list[Job], shards: Folder) -> Iterator[dict[str, Any]]:
    """Prepare all sequences in Ray Data tasks; yield each result when it is ready."""
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
    """Prepare one sequence of the list.

    Errors in its data are returned as a reason. Errors of a disk or network are raised and end the
    job.
    """
    job = jobs[int(row["number"])]
    name, files, reason = job.clip.name, list[ShardFile](), ""
    try:
        files = prepare_sequence(job, shards)
    except (DataFormatError, ConfigError) as error:
        reason = str(error)
    dumped = json.dumps([file.model_dump() for file in files])
    return {"sequence": name, "files": dumped, "reason": reason}


def prepare_sequence(job: Job, shards: Folder) -> list[ShardFile]:
    """Write the missing shards of one sequence, and return all its shards."""
    entries: dict[str, ShardFile] = {}
    keys: dict[str, str] = {}
    for file, windows in job.shards:
        names = [window.name(job.clip.sequence) for window in windows]
        keys[file] = digest([job.key, job.shape.model_dump(), names])
        if (noted := _read_note(shards, file, keys[file])) is not None:
            entries[file] = noted
    missing = [(file, windows) for file, windows in job.shards if file not in entries]
    with ExitStack() as stack:
        if missing:
            with _not_a_refusal():
                frames = _RecentFrames(stack.enter_context(job.clip.local()))
        for file, windows in missing:
            content = encode_shard(_row(job, window, frames) for window in windows)
            entries[file] = _shard_file(job, file, len(windows), content)
            note = {"key": keys[file], **entries[file].model_dump(mode="json")}
            with _not_a_refusal():
                shards.write(file, content)
                shards.write(_note_path(file), json.dumps(note).encode())
    return [entries[file] for file, _ in job.shards]


def _shard_file(job: Job, file: str, rows: int, content: bytes) -> ShardFile:
    """Return the manifest's entry of a shard."""
    info = job.clip.info
    return ShardFile(
        file=file,
        rows=rows,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        timeline=None if info.spike is None else info.timeline,
        threshold=None if info.spike is None else info.spike.threshold,
    )


@contextmanager
def _not_a_refusal() -> Iterator[None]:
    """Turn DataFormatError of a disk or network into ResourceError, which ends the job."""
    try:
        yield
    except DataFormatError as error:
        raise ResourceError(
            error.what, where=error.where, got=error.got, expected=error.expected, fix=error.fix
        ) from error


class _RecentFrames:
    """Reads each frame once while windows move forward; at most one window is in memory."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self._frames: dict[int, tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = {}

    def window(self, start: int, stop: int) -> tuple[NDArray[Any], ...]:
        """Return blurred frames, sharp frames and spikes of `[start, stop)`."""
        self._frames = {i: frame for i, frame in self._frames.items() if i >= start}
        for i in range(start, stop):
            if i not in self._frames:
                spikes = read_spikes(self._clip, i, i + 1) if self._clip.info.spike else _NO_SPIKES
                self._frames[i] = (
                    read_frames(self._clip, "blurred", i, i + 1),
                    read_frames(self._clip, "sharp", i, i + 1),
                    spikes,
                )
        parts = [self._frames[i] for i in range(start, stop)]
        return tuple(np.concatenate(kind) for kind in zip(*parts, strict=True))


def _note_path(file: str) -> str:
    """Return the name of the note beside a shard."""
    return str(PurePosixPath(file).with_suffix(".json"))


def _read_note(shards: Folder, file: str, key: str) -> ShardFile | None:
    """Return the entry in the note of a shard, if its inputs are the same and its file intact."""
    try:
        if shards.size(_note_path(file)) is None:
            return None
        note = parse_json(shards.read(_note_path(file)))
        if note.pop("key") != key:
            return None
        entry = ShardFile.model_validate(note)
        intact = shards.size(file) == entry.bytes and shards.sha256(file) == entry.sha256
    except (OSError, ValueError, KeyError, AttributeError, DataFormatError):
        return None
    return entry if intact and entry.file == file else None


def _row(job: Job, window: Window, frames: _RecentFrames) -> dict[str, Any]:
    """Return the row of one sample in its Parquet file."""
    shape, scale = job.shape, job.clip.info.spike_scale or 1
    top, left = window.top or 0, window.left or 0
    pixels = (slice(None), slice(top, top + shape.h), slice(left, left + shape.w))
    rows = slice(top // scale, top // scale + shape.hs)
    columns = slice(left // scale, left // scale + shape.ws)
    blurred, sharp, spikes = frames.window(window.start, window.start + shape.t)
    return {
        "sample": window.name(job.clip.sequence),
        "sequence": job.clip.sequence,
        "start": window.start,
        "blurred": blurred[pixels].tobytes(),
        "sharp": sharp[pixels].tobytes(),
        "spikes": pack_spikes(spikes[:, :, rows, columns]).tobytes(),
    }


def _remove_old_shards(shards: Folder, manifest: Manifest) -> None:
    """Delete shards of earlier settings, which the manifest does not list."""
    known = {shard.file for split in manifest.splits.values() for shard in split.shards}
    for file in shards.listing():
        shard = str(PurePosixPath(file).with_suffix(".parquet"))
        if file.endswith(".json") and shard not in known and _is_note(shards, file, shard):
            shards.remove(shard)
            shards.remove(file)


def _is_note(shards: Folder, file: str, shard: str) -> bool:
    """Return whether a file is our note of a shard, and not a file of the user."""
    try:
        note = parse_json(shards.read(file))
    except (ValueError, DataFormatError):
        return False
    if not isinstance(note, dict) or "key" not in note or not SHARD_NAME.fullmatch(shard):
        return False
    try:
        return ShardFile.model_validate({k: v for k, v in note.items() if k != "key"}).file == shard
    except ValidationError:
        return False


def _write_manifest(shards: Folder, manifest: Manifest) -> None:
    shards.write(MANIFEST, (manifest.model_dump_json() + "\n").encode())


def _check_refusals(plan: Plan, refused: list[Refusal], allowed: int) -> None:
    """Raise DataFormatError if more sequences were refused than the user allows."""
    if len(refused) > allowed:
        first = refused[0]
        raise DataFormatError(
            f"{len(refused)} sequences cannot be prepared, first {first.sequence}: {first.reason}",
            where=plan.source,
            expected=f"at most {allowed} (data.allow_refused)",
            fix="repair or remove them (`vrtspike validate` lists all), or raise the limit",
        )


def _manifest(
    plan: Plan,
    settings: PrepareSettings,
    written: dict[str, list[ShardFile]],
    refused: list[Refusal],
) -> Manifest:
    """Build the manifest of the written shards; raise DataFormatError for a split without any."""
    splits: dict[str, Split] = {}
    for name in settings.splits:
        jobs = [job for job in plan.jobs if job.clip.split == name and job.clip.name in written]
        if not jobs:
            raise DataFormatError(f"no sequence of split {name!r} could be prepared")
        files: list[ShardFile] = []
        samples: list[SampleRef] = []
        for job in jobs:
            for file, (_, windows) in zip(written[job.clip.name], job.shards, strict=True):
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
