"""The manifest of a checkpoint: the sizes and SHA-256 of its files, to verify it before it is read.

    <run>/checkpoints/step_00001000/   rank_00000.safetensors, ...   the slices of each rank
                                       manifest.json                 written last

A checkpoint is in one of three states. `whole`: all files match the manifest. `partial`: there is
no manifest, because the checkpoint is being written or its writing was interrupted. `damaged`:
there is a manifest, but a file does not match it. Partial and damaged checkpoints are skipped with
a warning and never loaded. Both are deleted when the same step is saved again; partial ones also
when a later step has been saved.

Tensors are in the shards (`vrtspike.training.state`); all other state is JSON, in the manifest's
`facts`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from vrtspike.errors import CheckpointError, DataFormatError, StorageError
from vrtspike.storage.folder import Folder

MANIFEST = "manifest.json"
VERSION = 2
PAUSES_S = (0.5, 2.0, 5.0)
"""Pauses between attempts to read a checkpoint when storage fails."""
_NAME = re.compile(r"step_(\d{8,})")

State = Literal["whole", "damaged", "partial"]


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: its folder and the contents of its manifest."""

    folder: Folder
    step: int
    world_size: int
    """Number of ranks that wrote it."""
    facts: dict[str, Any]
    """All state that is not a tensor: configuration, best score and the like."""
    files: tuple[str, ...]


@dataclass(frozen=True)
class Inspected:
    """The state of one checkpoint folder."""

    step: int
    bytes: int
    state: State
    saved: Checkpoint | None
    """The checkpoint, if it is whole."""
    problem: str | None
    """What is wrong, if it is not whole."""


def checkpoint_folder(checkpoints: Folder, step: int) -> Folder:
    """Return the folder of the checkpoint after `step` steps."""
    return checkpoints.below(f"step_{step:08d}")


def checkpoint_steps(checkpoints: Folder) -> list[int]:
    """Return the steps of all checkpoints, whole or not, newest first."""
    matches = [_NAME.fullmatch(name) for name in checkpoints.folders()]
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def verify(checkpoint: Folder, *, content: bool = True) -> Checkpoint:
    """Check a checkpoint against its manifest; raise CheckpointError if they differ.

    If `content` is false, check only names and sizes, not SHA-256. If storage fails, try again
    after the pauses of `PAUSES_S`.
    """
    for pause in (*PAUSES_S, None):
        try:
            return _verify(checkpoint, content)
        except DataFormatError as error:
            if pause is None or not isinstance(error, StorageError):
                raise CheckpointError(str(error), where=checkpoint) from None
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _verify(checkpoint: Folder, content: bool) -> Checkpoint:
    """Check a checkpoint once; raise DataFormatError if its files cannot be read."""
    sizes = {name: stamp.size for name, stamp in checkpoint.listing().items()}
    if MANIFEST not in sizes:
        raise CheckpointError(
            "no manifest: it is being written, or was never finished", where=checkpoint
        )
    saved, files = _read_manifest(checkpoint)
    for name, expected in files.items():
        if sizes.get(name) != expected["bytes"]:
            raise CheckpointError(
                f"damaged {name}",
                where=checkpoint,
                got=f"{sizes[name]} bytes" if name in sizes else "no file",
                expected=f"{expected['bytes']} bytes",
            )
        if content and checkpoint.sha256(name) != expected["sha256"]:
            raise CheckpointError(f"damaged {name}: its SHA-256 differs", where=checkpoint)
    return saved


def _read_manifest(checkpoint: Folder) -> tuple[Checkpoint, dict[str, dict[str, Any]]]:
    """Return the checkpoint of a manifest, and the size and SHA-256 of each file by name."""
    try:
        manifest = json.loads(checkpoint.read(MANIFEST))
        version = manifest["version"]
        if version == VERSION:
            # Other versions may lack these fields.
            step, ranks, facts = manifest["step"], manifest["world_size"], dict(manifest["facts"])
            files = {
                name: {"bytes": entry["bytes"], "sha256": entry["sha256"]}
                for name, entry in manifest["files"].items()
            }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"unreadable manifest: {error}", where=checkpoint) from None
    if version != VERSION:
        raise CheckpointError("another version", where=checkpoint, got=version, expected=VERSION)
    return Checkpoint(checkpoint, step, ranks, facts, tuple(files)), files


def newest(checkpoints: Folder, *, content: bool = True) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that verifies, and what is wrong with each newer one.

    Returns None if no checkpoint was ever finished. Raises CheckpointError if some were finished
    but none verifies. `content`: as in `verify`.
    """
    passed_over: list[str] = []
    finished = 0
    for step in checkpoint_steps(checkpoints):
        try:
            return verify(checkpoint_folder(checkpoints, step), content=content), passed_over
        except CheckpointError as error:
            passed_over.append(str(error))
            finished += checkpoint_folder(checkpoints, step).size(MANIFEST) is not None
    if finished:
        raise CheckpointError(
            f"none of {len(passed_over)} checkpoints verifies, newest: {passed_over[0]}",
            where=checkpoints,
            fix="restore a copy of one, or start a run of another name; nothing was deleted",
        )
    return None, passed_over


def inspect(checkpoints: Folder, *, content: bool = True) -> list[Inspected]:
    """Return the state of every checkpoint, newest first; `content`: as in `verify`."""
    inspected = []
    for step in checkpoint_steps(checkpoints):
        folder = checkpoint_folder(checkpoints, step)
        if not folder.exists():
            continue  # deleted by the run a moment ago
        size = sum(stamp.size for stamp in folder.listing().values())
        try:
            saved = verify(folder, content=content)
            inspected.append(Inspected(step, size, "whole", saved, None))
        except CheckpointError as error:
            state: State = "partial" if folder.size(MANIFEST) is None else "damaged"
            problem = CheckpointError(error.what, got=error.got, expected=error.expected)
            inspected.append(Inspected(step, size, state, None, str(problem)))
    return inspected


def prune(checkpoints: Folder, *, step: int, keep: int, best: Collection[int]) -> None:
    """Delete the checkpoints that a run no longer needs after it has saved `step`.

    It keeps the newest `keep` whole checkpoints up to `step` and those of the steps in `best`, and
    deletes partial ones. It leaves damaged checkpoints alone, and later steps, which an earlier
    attempt of the run wrote. Call it on one rank.
    """
    whole = []
    for past in checkpoint_steps(checkpoints):
        folder = checkpoint_folder(checkpoints, past)
        if past > step:
            continue
        if folder.size(MANIFEST) is None:
            folder.clear()
        elif _looks_whole(folder):
            whole.append(past)
    for past in whole[keep:]:
        if past not in best:
            delete(checkpoint_folder(checkpoints, past))


def delete(checkpoint: Folder) -> None:
    """Delete a checkpoint, whole or partial.

    The manifest is deleted first, so that an interrupted deletion leaves a partial checkpoint.
    """
    checkpoint.remove(MANIFEST)
    checkpoint.clear()


def _looks_whole(checkpoint: Folder) -> bool:
    """Return whether the names and sizes of a checkpoint's files match its manifest."""
    try:
        verify(checkpoint, content=False)
    except CheckpointError:
        return False
    return True
