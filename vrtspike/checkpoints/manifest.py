"""Checkpoints that can be trusted: sharded files, and a manifest with their sizes and SHA-256.

    <run>/checkpoints/step_00001000/   rank_00000.safetensors, ...   the parts that each rank wrote
                                       manifest.json                 written last

A folder without a manifest is partial: it is being written, or its writing was cut short. What
`vrtspike.checkpoints.read_write` gave a manifest was whole once. What is partial or was damaged
later does not verify: it is passed over with a warning and never loaded. It goes when its step is
saved again, a partial one also when a later step has been saved. Tensors are in the shards
(`vrtspike.training.state`), everything that JSON can hold is in the manifest's `facts`.
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
"""How long to wait before a checkpoint that storage did not give is read again."""
_NAME = re.compile(r"step_(\d{8,})")

State = Literal["whole", "damaged", "partial"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that verifies: where it is, and what its manifest says."""

    folder: Folder
    step: int
    world_size: int
    facts: dict[str, Any]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Inspected:
    """What is there of one checkpoint."""

    step: int
    bytes: int
    state: State
    saved: Checkpoint | None
    """What the manifest says, if it is whole."""
    problem: str | None
    """What is wrong, if it is not."""


def checkpoint_folder(checkpoints: Folder, step: int) -> Folder:
    """Return the folder of the checkpoint after `step` steps."""
    return checkpoints.below(f"step_{step:08d}")


def checkpoint_steps(checkpoints: Folder) -> list[int]:
    """Return the steps of which there is a checkpoint, whole or not, newest first."""
    found = [_NAME.fullmatch(name) for name in checkpoints.folders()]
    return sorted((int(match[1]) for match in found if match), reverse=True)


def verify(checkpoint: Folder, *, content: bool = True) -> Checkpoint:
    """Check a checkpoint against its manifest; raise CheckpointError with what is wrong.

    Without `content` only names and sizes are checked. Storage that fails is asked again for some
    seconds.
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
    """Check a checkpoint once; raise DataFormatError where files cannot be looked at."""
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
    """Return what a manifest says, and size and SHA-256 of its files by name."""
    try:
        manifest = json.loads(checkpoint.read(MANIFEST))
        version = manifest["version"]
        if version == VERSION:
            # Only so is it known to have the rest.
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
    """Return the newest checkpoint that verifies, and what is wrong with those passed over.

    None where no checkpoint was ever finished; CheckpointError where there are but none verifies.
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
    """Describe every checkpoint, newest first; without `content` by names and sizes alone."""
    found = []
    for step in checkpoint_steps(checkpoints):
        folder = checkpoint_folder(checkpoints, step)
        if not folder.exists():
            continue  # deleted by the run a moment ago
        size = sum(stamp.size for stamp in folder.listing().values())
        try:
            saved = verify(folder, content=content)
            found.append(Inspected(step, size, "whole", saved, None))
        except CheckpointError as error:
            state: State = "partial" if folder.size(MANIFEST) is None else "damaged"
            problem = CheckpointError(error.what, got=error.got, expected=error.expected)
            found.append(Inspected(step, size, state, None, str(problem)))
    return found


def prune(checkpoints: Folder, *, step: int, keep: int, best: Collection[int]) -> None:
    """Delete what a run that has just saved `step` needs no more; call it on one rank.

    The newest `keep` checkpoints and the best stay. Later steps are of a past that was given up,
    and are left alone, as is what is damaged; what was never finished before this step goes.
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
    """Delete a checkpoint, or what remains of one; the manifest goes first, so no part passes for
    the whole."""
    checkpoint.remove(MANIFEST)
    checkpoint.clear()


def _looks_whole(checkpoint: Folder) -> bool:
    """Tell whether a checkpoint verifies by names and sizes."""
    try:
        verify(checkpoint, content=False)
    except CheckpointError:
        return False
    return True
