"""The passes of one case of `vrtspike bench model`, in a process of its own.

In: settings of a model and a `Case`. Out, whenever asked: seconds and greatest memory of restoring
a clip and of a training step on it (forward and backward, without optimiser).
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from vrtspike.config.choices import Precision
from vrtspike.config.model import ModelSettings
from vrtspike.errors import named_line
from vrtspike.model import build_model
from vrtspike.model.costs import Clip, random_clip
from vrtspike.model.precision import autocast
from vrtspike.runtime.process_memory import peak_bytes, resident_bytes
from vrtspike.training.parallel import Sharded

Which = Literal["baseline", "fused"]
PEAK_RESET = Path("/proc/self/clear_refs")
"""Linux sets a process's peak back to its present size when 5 is written here."""


@dataclass(frozen=True)
class Case:
    """What is measured."""

    model: Which
    clip: Clip
    precision: Precision
    checkpoint: bool | None
    """Recompute attention and MLPs in the backward pass; None: as the model's settings say."""
    compile: bool


def settings_of(settings: ModelSettings, case: Case) -> ModelSettings:
    """Return the settings of a case's model."""
    changes: dict[str, Any] = {}
    if case.checkpoint is not None:
        changes |= {"checkpoint_attention": case.checkpoint, "checkpoint_mlp": case.checkpoint}
    if case.model == "baseline":
        changes["fusion"] = "none"
    return settings.model_copy(update=changes)


@dataclass(frozen=True)
class Pass:
    """One restoration and one training step."""

    forward_s: float
    step_s: float
    forward_bytes: int
    step_bytes: int


def serve(
    pipe: Connection, settings: ModelSettings, case: Case, device: torch.device, threads: int
) -> None:
    """Make a pass whenever asked, until the other end is closed."""
    try:
        torch.set_num_threads(threads)
        passes = ModelPasses(settings, case, device)
        while pipe.recv():
            pipe.send(passes.make())
    except EOFError:
        return
    except Exception as error:
        pipe.send(named_line(error, 200))


class ModelPasses:
    """A model and a clip in a process of their own."""

    def __init__(self, settings: ModelSettings, case: Case, device: torch.device) -> None:
        self._device, self._precision = device, case.precision
        self._memory = PeakMemory(device)
        torch.manual_seed(0)
        self._model: nn.Module = build_model(settings).to(device)
        if case.compile:
            for block in cast(Sharded, self._model).blocks():
                block.compile()
        self._blurred, self._voxels = random_clip(settings, case.clip, device)

    def make(self) -> Pass:
        """Restore, then train."""
        self._model.eval()
        with torch.no_grad():
            forward_s, forward_bytes = self._measured(self._restore)
        self._model.train()
        step_s, step_bytes = self._measured(self._train)
        self._model.zero_grad()
        return Pass(forward_s, step_s, forward_bytes, step_bytes)

    def _restore(self) -> Tensor:
        with autocast(self._device, self._precision):
            restored: Tensor = self._model(self._blurred, self._voxels)
        return restored

    def _train(self) -> None:
        difference = self._restore().float() - self._blurred
        difference.abs().mean().backward()  # type: ignore[no-untyped-call]

    def _measured(self, work: Callable[[], object]) -> tuple[float, int]:
        """Return the seconds that some work takes, and the greatest memory while it runs."""
        self._memory.reset()
        start = time.perf_counter()
        work()
        self._memory.wait()
        seconds, peak = time.perf_counter() - start, self._memory.peak()
        self._memory.give_back()
        return seconds, peak


class PeakMemory:
    """The greatest memory of this process since a reset, beyond what it was at the start."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._before = 0 if self._cuda else resident_bytes()

    def reset(self) -> None:
        """Forget the peaks so far."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            PEAK_RESET.write_text("5")

    def give_back(self) -> None:
        """Return what the allocator kept: the process beside this one may need it."""
        if self._cuda:
            torch.cuda.empty_cache()
        else:
            ctypes.CDLL("libc.so.6").malloc_trim(0)

    def wait(self) -> None:
        """Wait until the device has done its work."""
        if self._cuda:
            torch.cuda.synchronize()

    def peak(self) -> int:
        """Return bytes."""
        if self._cuda:
            return torch.cuda.max_memory_allocated()
        return peak_bytes() - self._before
