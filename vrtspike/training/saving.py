"""Writing and reading checkpoints from all ranks, with PyTorch's distributed checkpoints (DCP).

In and out: a flat dictionary of tensors, sharded or not. A checkpoint is written under another
name, hashed, given its manifest, and only then renamed: what has the right name is whole. It can be
loaded by any number of ranks.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load as load_shards
from torch.distributed.checkpoint.state_dict_saver import save as save_shards

from vrtspike.errors import CheckpointError
from vrtspike.storage import sha256_of, write_atomically
from vrtspike.training.checkpoint import MANIFEST, VERSION, Saved, checkpoint_path


def save(folder: Path, step: int, state: dict[str, Any], facts: dict[str, Any]) -> Path:
    """Write a checkpoint from all ranks; return its folder once it is whole."""
    path = checkpoint_path(folder, step)
    unfinished = folder / f".{path.name}.part"
    rank = dist.get_rank()
    if rank == 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    dist.barrier()
    try:
        save_shards(state, checkpoint_id=unfinished)
    except CheckpointException as error:
        raise CheckpointError(f"cannot save: {_reason(error)}", where=unfinished) from None
    files = _describe(unfinished, rank, dist.get_world_size())
    if rank == 0:
        manifest = {
            "version": VERSION,
            "step": step,
            "world_size": dist.get_world_size(),
            "files": files,
            "facts": facts,
        }
        write_atomically(unfinished / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
        if path.exists():
            # Only one that did not verify can be in the way: its successor reached the same step.
            path.rename(_free_name(folder / f"{path.name}.damaged"))
        unfinished.rename(path)
    dist.barrier()
    return path


def load(saved: Saved, state: dict[str, Any]) -> None:
    """Fill the tensors of `state` in place, on all ranks."""
    try:
        load_shards(state, checkpoint_id=saved.path)
    except CheckpointException as error:
        raise CheckpointError(
            f"a checkpoint does not fit the model: {_reason(error)}", where=saved.path
        ) from None


def stored_keys(saved: Saved) -> set[str]:
    """Return the keys of the state that a checkpoint holds."""
    metadata = FileSystemReader(saved.path).read_metadata()
    return set(metadata.state_dict_metadata)


def _describe(path: Path, rank: int, world: int) -> dict[str, dict[str, Any]]:
    """Hash the files of a checkpoint, each rank its own and rank 0 the rest; gather on all."""
    mine = {}
    for file in sorted(path.iterdir()):
        match = re.match(r"__(\d+)_", file.name)
        owner = int(match[1]) if match else 0
        if owner == rank and not file.name.endswith(".part"):
            mine[file.name] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    everyone: list[dict[str, dict[str, Any]]] = [{} for _ in range(world)]
    dist.all_gather_object(everyone, mine)
    return {name: facts for part in everyone for name, facts in sorted(part.items())}


def _free_name(path: Path) -> Path:
    """Return a path that nothing has yet."""
    number, free = 1, path
    while free.exists():
        number, free = number + 1, path.with_name(f"{path.name}{number}")
    return free


def _reason(error: CheckpointException) -> str:
    """Return the first failure of a collective operation, on one line."""
    first = next(iter(error.failures.values()), None)
    inner = first[0] if isinstance(first, tuple) else first
    return " ".join(str(inner or error).split())[:300]
