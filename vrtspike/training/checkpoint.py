"""Checkpoints that can be trusted: sharded files, and a manifest with their sizes and SHA-256.

    <run>/checkpoints/step_00001000/   __0_0.distcp, __1_0.distcp, ... one or more a rank
                                       .metadata                      which tensor lies where
                                       manifest.json                  written last

What has such a name was whole once (`vrtspike.training.saving`). What is damaged later does not
verify: it is passed over with a warning, never loaded and never deleted. Tensors are in the shards
(`vrtspike.training.state`), everything that JSON can hold is in the manifest's `facts`.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrtspike.errors import CheckpointError
from vrtspike.storage import sha256_of

MANIFEST = "manifest.json"
VERSION = 1
_NAME = re.compile(r"step_(\d{8,})")


@dataclass(frozen=True)
class Saved:
    """A checkpoint that verifies: where it is, and what its manifest says besides files."""

    path: Path
    step: int
    world_size: int
    facts: dict[str, Any]


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the name of the checkpoint after `step` steps."""
    return folder / f"step_{step:08d}"


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps of which a checkpoint has its final name, whole or not, newest first."""
    if not folder.is_dir():
        return []
    found = [_NAME.fullmatch(path.name) for path in folder.iterdir()]
    return sorted((int(match[1]) for match in found if match), reverse=True)


def verify(path: Path, *, content: bool = True) -> Saved:
    """Check a checkpoint against its manifest; raise CheckpointError with what is wrong.

    Without `content` only names and sizes are checked.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version, files = manifest["version"], dict(manifest["files"])
        saved = Saved(path, manifest["step"], manifest["world_size"], dict(manifest["facts"]))
    except FileNotFoundError:
        raise CheckpointError("no manifest", where=path) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"unreadable manifest: {error}", where=path) from None
    if version != VERSION:
        raise CheckpointError("another version", where=path, got=version, expected=VERSION)
    for name, expected in files.items():
        file = path / name
        size = file.stat().st_size if file.is_file() else None
        if size != expected["bytes"]:
            got = "no file" if size is None else f"{size} bytes"
            raise CheckpointError(
                f"damaged {name}", where=path, got=got, expected=f"{expected['bytes']} bytes"
            )
        if content and sha256_of(file) != expected["sha256"]:
            raise CheckpointError(f"damaged {name}: its SHA-256 differs", where=path)
    return saved


def newest(folder: Path, *, content: bool = True) -> tuple[Saved | None, list[str]]:
    """Return the newest checkpoint that verifies, and what is wrong with those passed over.

    None where there is no checkpoint; CheckpointError where there are but none verifies.
    """
    passed_over: list[str] = []
    for step in checkpoint_steps(folder):
        try:
            return verify(checkpoint_path(folder, step), content=content), passed_over
        except CheckpointError as error:
            passed_over.append(str(error))
    if passed_over:
        raise CheckpointError(
            f"none of {len(passed_over)} checkpoints verifies, newest: {passed_over[0]}",
            where=folder,
            fix="restore a copy of one, or start a run of another name; nothing was deleted",
        )
    return None, passed_over


def prune(folder: Path, *, keep: int, best_step: int | None) -> None:
    """Delete all but the newest `keep` checkpoints and the best one; call it on one rank.

    Only checkpoints with a manifest count and are deleted: a damaged one may be wanted for repair.
    """
    whole = [
        step
        for step in checkpoint_steps(folder)
        if (checkpoint_path(folder, step) / MANIFEST).is_file()
    ]
    for step in whole[keep:]:
        if step != best_step:
            path = checkpoint_path(folder, step)
            doomed = folder / f".{path.name}.deleted"
            path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
