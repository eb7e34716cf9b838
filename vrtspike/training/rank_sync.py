"""Results and errors that all ranks share."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from vrtspike.errors import ConfigError, ResourceError, VrtSpikeError
from vrtspike.storage.folder import Folder

T = TypeVar("T")


def from_first_rank(
    work: Callable[[], T],
    *,
    group: dist.ProcessGroup | None = None,
    device: torch.device | None = None,
) -> T:
    """Call `work` on rank 0 only; return its result, or raise its VrtSpikeError, on all ranks."""
    outcome: list[Any] = [None, None]  # result, error
    if dist.get_rank() == 0:
        try:
            outcome[0] = work()
        except VrtSpikeError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, group=group, device=device)
    if outcome[1] is not None:
        raise outcome[1]
    result: T = outcome[0]
    return result


def check_shared(run: Folder, *, group: dist.ProcessGroup) -> None:
    """Raise ResourceError on all ranks if a rank does not see the run folder of rank 0."""
    if run.remote:
        return
    mark = run.path / ".seen-by-all"
    from_first_rank(lambda: _touch(mark, run), group=group)
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


def _touch(mark: Path, run: Folder) -> None:
    try:
        mark.touch()
    except OSError as error:
        raise ResourceError(
            f"cannot write to the run's folder: {error.strerror}", where=run
        ) from None


def ranks_per_node(on_this_node: int, *, group: dist.ProcessGroup) -> int:
    """Return how many ranks each node has; raise ConfigError on all ranks if nodes differ."""
    counts: list[int] = [0] * dist.get_world_size()
    dist.all_gather_object(counts, on_this_node, group=group)
    if len(set(counts)) > 1:
        raise ConfigError(
            "nodes have different numbers of workers",
            got=f"train.shard_over node, workers on each rank's node: {counts}",
            fix="set train.shard_over=all, or start as many workers on every node",
        )
    return counts[0]
