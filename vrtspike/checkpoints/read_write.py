"""Write and read checkpoints from all ranks, on a shared disk or in an object store.

Each rank writes one file. If several ranks hold the same slice (hybrid sharding, buffers), the one
with the fewest bytes so far writes it. Size and SHA-256 are computed while writing. When all ranks
have finished and rank 0 sees all files, rank 0 writes the manifest, which makes the checkpoint
whole. If any rank fails, all ranks raise the same CheckpointError, and the written files are
deleted.

A checkpoint can be loaded by any number of ranks: the planner of PyTorch's distributed checkpoint
(DCP) decides which rank reads which slices.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner

from vrtspike.checkpoints.manifest import MANIFEST, VERSION, Checkpoint, checkpoint_folder, delete
from vrtspike.checkpoints.shards import (
    file_name,
    read_headers,
    read_parts,
    shard_data,
    shard_header,
)
from vrtspike.checkpoints.snapshot import Snapshot, TensorSlice
from vrtspike.errors import CheckpointError, VrtSpikeError, named_line, one_line
from vrtspike.storage.folder import Folder

T = TypeVar("T")
SEEN_WITHIN_S = 5.0
"""How long rank 0 waits for the files of other ranks to appear; network disks show them late."""


class CheckpointWriter:
    """Write the checkpoints of one run.

    `group` is a gloo process group; nothing else may use it while a checkpoint is written.
    """

    def __init__(self, checkpoints: Folder, group: dist.ProcessGroup) -> None:
        self._checkpoints, self._group = checkpoints, group
        self._rank, self._world = dist.get_rank(group), dist.get_world_size(group)
        self._pieces: tuple[TensorSlice, ...] | None = None
        self._own_slices: list[TensorSlice] = []
        self._header = b""

    def write(self, step: int, snapshot: Snapshot, facts: dict[str, Any]) -> Folder:
        """Write a checkpoint, on all ranks together; return its folder when it is whole.

        Files of an earlier attempt at this step are deleted first. `facts` are taken from rank 0.
        Raises CheckpointError on all ranks if one fails.
        """
        folder = checkpoint_folder(self._checkpoints, step)
        is_first = self._rank == 0
        _, problem = _attempt(lambda: delete(folder) if is_first else None)
        starts = self._exchange((problem, snapshot.pieces is not self._pieces))
        _raise_first([problem for problem, _ in starts], folder)
        if any(changed for _, changed in starts):
            self._assign_slices(snapshot.pieces)
        entry, problem = _attempt(lambda: self._write_own(folder, snapshot))
        reports = self._exchange((entry, problem))
        try:
            _raise_first([problem for _, problem in reports], folder)
            files = {name: entry for own, _ in reports for name, entry in (own or {}).items()}
            manifest = {
                "version": VERSION,
                "step": step,
                "world_size": self._world,
                "files": files,
                "facts": facts,
            }
            _, problem = _attempt(lambda: _commit(folder, manifest) if is_first else None)
            _raise_first(self._exchange(problem), folder)
        except CheckpointError:
            self._clean_up(folder)
            raise
        return folder

    def agree(self, value: T) -> T:
        """Return rank 0's value on all ranks."""
        values = [value]
        source = dist.get_global_rank(self._group, 0)
        dist.broadcast_object_list(values, src=source, group=self._group)
        return values[0]

    def _exchange(self, value: T) -> list[T]:
        """Return the values of all ranks, on all ranks."""
        values: list[Any] = [None] * self._world
        dist.all_gather_object(values, value, group=self._group)
        return values

    def _assign_slices(self, pieces: tuple[TensorSlice, ...]) -> None:
        """Exchange the slices that each rank has; choose those that this rank writes."""
        self._pieces = pieces
        owners = _owners(self._exchange([(p.key, p.offsets, p.end - p.begin) for p in pieces]))
        self._own_slices = [p for p in pieces if owners[p.key, p.offsets] == self._rank]
        self._header = shard_header(self._own_slices)

    def _write_own(self, folder: Folder, snapshot: Snapshot) -> dict[str, dict[str, Any]]:
        """Write this rank's file, if it has any slices; return its size and SHA-256 by name."""
        if not self._own_slices:
            return {}
        name, size, digest = file_name(self._rank), 0, hashlib.sha256()
        with folder.stream(name) as sink:
            for block in (memoryview(self._header), *shard_data(self._own_slices, snapshot.memory)):
                sink.write(block)
                digest.update(block)
                size += len(block)
        return {name: {"bytes": size, "sha256": digest.hexdigest()}}

    def _clean_up(self, folder: Folder) -> None:
        """Delete the files of a failed save, if storage allows it."""
        _attempt(lambda: folder.remove(file_name(self._rank)))
        if self._rank == 0:
            _attempt(lambda: delete(folder))


def load(
    saved: Checkpoint, state: dict[str, Any], *, group: dist.ProcessGroup | None = None
) -> None:
    """Read a checkpoint into the tensors of `state`, in place; each rank reads its own slices.

    `group`: the process group of all ranks (default: the default group, if there is one). Raises
    CheckpointError on all ranks if one fails.
    """
    _, problem = _attempt(lambda: _load_own(saved, state))
    problems: list[CheckpointError | None] = [problem]
    if dist.is_initialized():
        problems = [None] * dist.get_world_size(group)
        dist.all_gather_object(problems, problem, group=group)
    for error in problems:
        if error is not None:
            raise error


def stored_keys(saved: Checkpoint) -> set[str]:
    """Return the keys of all tensors in a checkpoint."""
    return set(read_headers(saved.folder, saved.files)[0].state_dict_metadata)


def empty_tensors(saved: Checkpoint, beginning: str) -> dict[str, torch.Tensor]:
    """Return an uninitialised tensor of the right size for every key that starts with
    `beginning`."""
    tensors: dict[str, Any] = dict(read_headers(saved.folder, saved.files)[0].state_dict_metadata)
    return {
        key: torch.empty(tensor.size, dtype=tensor.properties.dtype)
        for key, tensor in tensors.items()
        if key.startswith(beginning)
    }


def _load_own(saved: Checkpoint, state: dict[str, Any]) -> None:
    """Read this rank's slices of a checkpoint into `state`."""
    metadata, places = read_headers(saved.folder, saved.files)
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(state, metadata, is_coordinator=False)
    try:
        plan = planner.finish_plan(planner.create_local_plan())
    except (RuntimeError, ValueError) as error:
        reason = one_line(error)
        raise CheckpointError(
            f"a checkpoint does not fit the model: {reason}", where=saved.folder
        ) from None
    with torch.no_grad():
        for item, part in read_parts(saved.folder, plan.items, places):
            planner.resolve_tensor(item).copy_(part)


def _owners(parts_of_ranks: Sequence[Sequence[tuple[str, tuple[int, ...], int]]]) -> dict[Any, int]:
    """Return which rank writes each slice, by (key, offsets).

    `parts_of_ranks`: key, offsets and bytes of each slice of each rank. A slice that only one rank
    has is written by that rank. The others, largest first, go to the rank with the fewest bytes.
    """
    holders: dict[Any, list[int]] = {}
    sizes: dict[Any, int] = {}
    for rank, parts in enumerate(parts_of_ranks):
        for key, offsets, size in parts:
            holders.setdefault((key, offsets), []).append(rank)
            sizes[key, offsets] = size
    loads, owners = [0] * len(parts_of_ranks), {}
    for part in sorted(holders, key=lambda part: (len(holders[part]) > 1, -sizes[part], part)):
        owner = min(holders[part], key=lambda rank: (loads[rank], rank))
        owners[part] = owner
        loads[owner] += sizes[part]
    return owners


def _commit(folder: Folder, manifest: dict[str, Any]) -> None:
    """Wait until the files of all ranks are visible, then write the manifest."""
    text = json.dumps(manifest, indent=1) + "\n"
    missing = {name: entry["bytes"] for name, entry in manifest["files"].items()}
    deadline = time.monotonic() + SEEN_WITHIN_S
    while missing:
        missing = {name: size for name, size in missing.items() if folder.size(name) != size}
        if missing and time.monotonic() > deadline:
            name, size = next(iter(missing.items()))
            visible = folder.size(name)
            raise CheckpointError(
                "rank 0 does not see what another rank has written",
                where=folder.name(name),
                got="no file" if visible is None else f"{visible} bytes",
                expected=f"{size} bytes",
                fix="set run.root to a folder that all nodes share, or to an object store",
            )
        if missing:
            time.sleep(0.1)
    folder.write(MANIFEST, text.encode())


def _attempt(work: Callable[[], T]) -> tuple[T | None, CheckpointError | None]:
    """Call `work`; return its result, or its error as a CheckpointError that can be pickled."""
    try:
        return work(), None
    except VrtSpikeError as error:
        parts = {name: getattr(error, name) for name in ("where", "got", "expected", "fix")}
        texts = {name: None if part is None else str(part) for name, part in parts.items()}
        return None, CheckpointError(error.what, **texts)
    except Exception as error:
        return None, CheckpointError(named_line(error))


def _raise_first(problems: Sequence[CheckpointError | None], folder: Folder) -> None:
    """Raise the error of the lowest rank that has one."""
    for rank, problem in enumerate(problems):
        if problem is not None:
            raise CheckpointError(
                f"cannot save a checkpoint: {problem.what}",
                where=problem.where or folder,
                got=problem.got,
                expected=problem.expected,
                fix=problem.fix or f"see whether rank {rank} can write there, and for free space",
            )
