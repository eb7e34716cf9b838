"""What this process sends to the others, and the time that it spends on that.

In: a block of code that trains. Out: bytes by kind (see `vrtspike.bench.step_model`), counted from
the tensors of the calls, and seconds. On a CPU (gloo) a call returns when it is done, so its time
is that of the call: copying, sending, and waiting for the slowest rank. On a GPU (NCCL) calls only
order the work, which runs beside the computing; there it is the time of NCCL's kernels, found by
PyTorch's profiler, so what overlaps counts, too.

Only calls through `torch.distributed`'s own names are seen: those of `fully_shard` and of the step,
and not those of a checkpoint that is being written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from vrtspike.bench.step_model import Sent

Kind = Literal["gathered", "scattered", "reduced"]
CALLS: dict[str, Kind] = {
    "all_gather_into_tensor": "gathered",
    "reduce_scatter_tensor": "scattered",
    # The names of the same since torch 2.15.
    "all_gather_single": "gathered",
    "reduce_scatter_single": "scattered",
    "all_reduce": "reduced",
}


@dataclass
class Collectives:
    """What was seen so far; seconds on a GPU once the block has ended."""

    seconds: float = 0.0
    gathered: int = 0
    scattered: int = 0
    reduced: int = 0

    def sent(self, steps: int) -> Sent:
        """Return the bytes of one of `steps` equal steps."""
        return Sent(self.gathered // steps, self.scattered // steps, self.reduced // steps)


@contextmanager
def watched(device: torch.device) -> Iterator[Collectives]:
    """SupervisorLink the collectives of this process while a block runs."""
    found = Collectives()
    names = [name for name in CALLS if hasattr(dist, name)]
    plain = {name: getattr(dist, name) for name in names}
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(_kernels(found))
        for name in names:
            timed = device.type == "cpu"
            setattr(dist, name, partial(_call, found, CALLS[name], plain[name], timed))
        try:
            yield found
        finally:
            for name in names:
                setattr(dist, name, plain[name])


def _call(
    found: Collectives,
    kind: Kind,
    collective: Callable[..., Any],
    timed: bool,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Make a call, and note it."""
    start = time.perf_counter()
    out = collective(*args, **kwargs)
    if timed:
        found.seconds += time.perf_counter() - start
    values = [*args, *kwargs.values()]
    # The whole: the output of a gather, the input of a scatter.
    whole = max(x.numel() * x.element_size() for x in values if isinstance(x, Tensor))
    group = next((x for x in values if isinstance(x, dist.ProcessGroup)), None)
    ranks = dist.get_world_size(group)
    ways = 2 if kind == "reduced" else 1
    setattr(found, kind, getattr(found, kind) + ways * (ranks - 1) * whole // ranks)
    return out


@contextmanager
def _kernels(found: Collectives) -> Iterator[None]:
    """Sum the time of NCCL's kernels."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        yield
        torch.cuda.synchronize()
    kernels = (event for event in profiler.key_averages() if "nccl" in event.key.lower())
    found.seconds += sum(event.device_time_total for event in kernels) / 1e6
