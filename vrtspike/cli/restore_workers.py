"""The workers of `vrtspike restore`: this process, or several processes on Ray."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vrtspike.errors import ConfigError, ResourceError
from vrtspike.runtime.ray_session import cluster_size, connect

if TYPE_CHECKING:
    from vrtspike.restoration.job import Runner
    from vrtspike.restoration.restorer import Restorer
    from vrtspike.restoration.segment_worker import RestoreSettings


@dataclass(frozen=True)
class Workers:
    """The processes that restore."""

    count: int
    gpu: bool
    """Whether each worker has a GPU."""
    threads: int
    """CPU threads of each worker; used without a GPU only."""
    machines: int
    on_ray: bool
    """Whether the workers are Ray actors."""

    def share(self, bound: int | None) -> int | None:
        """Return how much memory each worker may use, in bytes, if several share a machine's RAM.

        `bound`: bytes for all workers of a machine (default: most of the free memory of this
        machine; other machines are assumed to have the same). On GPUs, or with one worker on each
        machine, return `bound`.
        """
        at_once = -(-self.count // self.machines)
        if self.gpu or at_once == 1:
            return bound
        from vrtspike.restoration.memory import free_for_all

        return (free_for_all() if bound is None else bound) // at_once

    def runner(self, restorer: Restorer, settings: RestoreSettings, stack: ExitStack) -> Runner:
        """Start the workers and return the runner; start Ray if it is needed and not running."""
        if self.on_ray:
            stack.enter_context(connect())
            from vrtspike.restoration.on_ray import OnRay

            return OnRay(restorer, settings, self.count, self.gpu, self.threads)
        import torch

        from vrtspike.restoration.job import InProcess
        from vrtspike.restoration.segment_worker import SegmentWorker

        device = torch.device("cuda" if self.gpu else "cpu")
        return InProcess(SegmentWorker(restorer, settings, device, self.threads))


def find_workers(
    device: Literal["cpu", "cuda"] | None,
    count: int | None,
    threads: int | None,
    stack: ExitStack,
) -> Workers:
    """Choose the workers: by default one for each GPU, or without GPUs one for each machine.

    If RAY_ADDRESS is set, join that cluster and count its GPUs and cores. Raises ResourceError if
    there are too few, or none of the requested `device`.
    """
    import torch

    on_ray = bool(os.environ.get("RAY_ADDRESS"))
    if on_ray:
        stack.enter_context(connect())
        gpus, cores, machines = cluster_size()
    else:
        gpus, cores, machines = torch.cuda.device_count(), _own_cores(), 1
    if device == "cuda" and not gpus:
        raise ResourceError("there is no GPU here", fix="leave --device cuda away")
    gpu = device != "cpu" and gpus > 0
    if gpu and threads is not None:
        raise ConfigError("--threads is for workers on a CPU", fix="leave it away")
    count = count or (gpus if gpu else machines)
    threads = threads or max(1, cores // count)
    several = on_ray or count > 1
    if (count > gpus) if gpu else (several and count * threads > cores):
        raise ResourceError(
            "there is no room for so many workers",
            got=f"{count} workers" + ("" if gpu else f" of {threads} threads"),
            expected=f"{gpus} GPUs at most" if gpu else f"{cores} threads at most",
            fix="lower --workers or --threads",
        )
    return Workers(count, gpu, threads, machines, several)


def _own_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
