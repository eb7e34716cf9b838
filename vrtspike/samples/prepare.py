"""Dataset folder -> Parquet shards of fixed-shape samples: one Ray Data task a sequence.

The samples of every sequence follow from the dataset's index alone, so each shard has its name and
content before any task runs. A shard never spans two sequences: refusing one leaves the others'
files as they are, and the same dataset gives the same bytes, however the tasks were scheduled or
how often the job was killed. Beside each shard lies a note of what it was made from; a shard whose
note and SHA-256 are right is not written again. The manifest comes last.
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
"""How we call a shard."""
_NO_SPIKES = np.zeros((1, 0, 0, 0), np.bool_)


def prepare_data(
    settings: DataSettings, progress: Report | None = None, *, dataset: Dataset | None = None
) -> Manifest:
    """Prepare the training and validation splits that a configuration's data section names.

    `dataset` is its source, where that has been opened already.
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
    present = _present(folder, plan)
    if present is not None:
        tell(len(plan.jobs), len(plan.jobs))
        if present.source != plan.source:
            present = present.model_copy(update={"source": plan.source})
            _write_manifest(folder, present)
        return present
    _check_refusals(plan, plan.refused, allow_refused)
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
    _check_refusals(plan, refused, allow_refused)
    for refusal in refused:
        logger.warning("refused %s: %s", refusal.sequence, refusal.reason)
    refused.sort(key=lambda refusal: refusal.sequence)
    manifest = _manifest(plan, settings, written, refused)
    _remove_strays(folder, manifest)
    _write_manifest(folder, manifest)
    return manifest


def _present(shards: Folder, plan: Plan) -> Manifest | None:
    """Return the manifest that is there, if it was made from the same inputs and its files hold.

    What was refused while it was made is tried again. An object store vouches for the content of
    its objects itself.
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
    """Prepare one sequence of the list; its own faults are a result, not a failure of the job.

    What a disk or a network does is no fault of the sequence, and ends the job.
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
    """Write the shards of one sequence that are not there yet."""
    known: dict[str, ShardFile] = {}
    keys: dict[str, str] = {}
    for file, windows in job.shards:
        names = [window.name(job.clip.sequence) for window in windows]
        keys[file] = digest([job.key, job.shape.model_dump(), names])
        if (noted := _noted(shards, file, keys[file])) is not None:
            known[file] = noted
    missing = [(file, windows) for file, windows in job.shards if file not in known]
    with ExitStack() as stack:
        if missing:
            with _no_fault_of_the_data():
                frames = _RecentFrames(stack.enter_context(job.clip.local()))
        for file, windows in missing:
            content = encode_shard(_row(job, window, frames) for window in windows)
            known[file] = _shard_file(job, file, len(windows), content)
            note = {"key": keys[file], **known[file].model_dump(mode="json")}
            with _no_fault_of_the_data():
                shards.write(file, content)
                shards.write(_note_of(file), json.dumps(note).encode())
    return [known[file] for file, _ in job.shards]


def _shard_file(job: Job, file: str, rows: int, content: bytes) -> ShardFile:
    """Return what the manifest says of a shard."""
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
def _no_fault_of_the_data() -> Iterator[None]:
    """Turn what a disk or a network refuses into an error that is no refusal of a sequence."""
    try:
        yield
    except DataFormatError as error:
        raise ResourceError(
            error.what, where=error.where, got=error.got, expected=error.expected, fix=error.fix
        ) from error


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
        found = parse_json(shards.read(_note_of(file)))
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


def _remove_strays(shards: Folder, manifest: Manifest) -> None:
    """Delete shards of earlier settings that the manifest does not know."""
    known = {shard.file for split in manifest.splits.values() for shard in split.shards}
    for file in shards.listing():
        shard = str(PurePosixPath(file).with_suffix(".parquet"))
        if file.endswith(".json") and shard not in known and _is_note(shards, file, shard):
            shards.remove(shard)
            shards.remove(file)


def _is_note(shards: Folder, file: str, shard: str) -> bool:
    """Tell whether a file is our note of a shard; anything else is somebody's own."""
    try:
        found = parse_json(shards.read(file))
    except (ValueError, DataFormatError):
        return False
    if not isinstance(found, dict) or "key" not in found or not SHARD_NAME.fullmatch(shard):
        return False
    try:
        return (
            ShardFile.model_validate({k: v for k, v in found.items() if k != "key"}).file == shard
        )
    except ValidationError:
        return False


def _write_manifest(shards: Folder, manifest: Manifest) -> None:
    shards.write(MANIFEST, (manifest.model_dump_json() + "\n").encode())


def _check_refusals(plan: Plan, refused: list[Refusal], allowed: int) -> None:
    """Fail when more sequences are refused than the user accepts."""
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
    """Put together what was written; every split must have samples of one shape."""
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
