"""What all ranks must agree on before a run goes on, and errors that all of them get."""

from __future__ import annotations

import socket
from typing import Any

import torch.distributed as dist

from vrtspike.errors import ConfigError, ResourceError, VrtSpikeError
from vrtspike.storage import Folder
from vrtspike.training.checkpoint import Saved, newest


def newest_for_all(
    checkpoints: Folder, *, group: dist.ProcessGroup
) -> tuple[Saved | None, list[str]]:
    """Let rank 0 choose the newest checkpoint that verifies; tell what was passed over.

    Raises CheckpointError, on all ranks, where there are checkpoints and none verifies.
    """
    found: list[Any] = [None]
    if dist.get_rank() == 0:
        try:
            found = [newest(checkpoints)]
        except VrtSpikeError as error:
            found = [error]
    dist.broadcast_object_list(found, group=group)
    if isinstance(found[0], VrtSpikeError):
        raise found[0]
    chosen: tuple[Saved | None, list[str]] = found[0]
    return chosen


def check_shared(run: Folder, *, group: dist.ProcessGroup) -> None:
    """Raise ResourceError, on all ranks, where a rank does not see the run's folder of rank 0."""
    if run.remote:
        return
    mark = run.path / ".seen-by-all"
    told: list[str | None] = [None]
    if dist.get_rank() == 0:
        try:
            mark.touch()
        except OSError as error:
            told = [error.strerror]
    dist.broadcast_object_list(told, group=group)
    if told[0] is not None:
        raise ResourceError(f"cannot write to the run's folder: {told[0]}", where=run)
    blind: list[str | None] = [None] * dist.get_world_size()
    seen = mark.exists()
    dist.all_gather_object(blind, None if seen else socket.gethostname(), group=group)
    if dist.get_rank() == 0:
        mark.unlink(missing_ok=True)
    hosts = sorted({host for host in blind if host is not None})
    if hosts:
        raise ResourceError(
            "the run's folder is not the same on all nodes",
            where=run,
            got=f"other files on {', '.join(hosts)}",
            expected="what rank 0 writes",
            fix="set run.root to a folder that all nodes share, or to a URI such as s3://bucket/runs",
        )


def ranks_per_node(on_this_node: int, *, group: dist.ProcessGroup) -> int:
    """Return how many ranks each node has; raise ConfigError, on all, where the numbers differ."""
    found: list[int] = [0] * dist.get_world_size()
    dist.all_gather_object(found, on_this_node, group=group)
    if len(set(found)) > 1:
        raise ConfigError(
            "nodes have different numbers of workers",
            got=f"train.shard_over node, workers on each rank's node: {found}",
            fix="set train.shard_over=all, or start as many workers on every node",
        )
    return found[0]
