"""Time and memory of a model on this machine: restoring a clip, and a training step of it.

In: settings of a model, and cases (size, precision, checkpointing, compilation). Out: a `Result` of
each. The fused model and its baseline run side by side: each case has a process of its own, so that
peaks are its own, and the processes of a pair take turns, so that both see the same machine. A step
is a forward and a backward pass, without optimiser. Memory includes weights and gradients; on a CPU
it is the greatest resident size beyond that before the model was built, holes of the heap included
(see `MAP_BLOCKS`).
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from multiprocessing.connection import Connection
from typing import Any

import torch

from vrtspike.bench.passes import Case, Pass, Which, serve, settings_of
from vrtspike.config.choices import Precision
from vrtspike.config.model import ModelSettings
from vrtspike.errors import ConfigError, ResourceError
from vrtspike.model.costs import MAP_BLOCKS, Clip, measure_costs

PEAK_FLOPS = {"H100": 790e12, "H200": 790e12}
"""What a GPU reaches in bfloat16 products, by a part of its name."""
STEP_OVER_FORWARD = 3
"""Each product of the forward pass has two in the backward pass."""


@dataclass(frozen=True)
class Measured:
    """What a case takes: seconds (medians), greatest bytes, operations."""

    forward_s: float
    step_s: float
    forward_bytes: int
    step_bytes: int
    step_flops: int
    """Operations of a forward and a backward pass; what is recomputed is not counted twice."""
    mfu: float | None
    """Operations of a step a second over the device's peak; None where that is not known."""


@dataclass(frozen=True)
class Result:
    """What became of a case: its measures, or the line that says why there are none."""

    case: Case
    measured: Measured | None
    failure: str | None = None
    over_baseline: Mapping[str, float] | None = None
    """Seconds and bytes of the fused model over those of the baseline beside it."""


@dataclass(frozen=True)
class Machine:
    """Where the cases run."""

    device: str
    name: str
    threads: int
    torch: str = str(torch.__version__)
    mapped_from: str | None = os.environ.get(MAP_BLOCKS)
    """Bytes from which blocks are mapped by themselves; None: as the C library decides."""

    def __str__(self) -> str:
        where = f"{self.threads} threads" if self.device == "cpu" else self.device
        return f"{self.name}, {where}, torch {self.torch}"

    def peak_flops(self, precision: Precision) -> float | None:
        """Return the operations a second that products reach at most, where that is known."""
        if self.device != "cuda" or precision != "bfloat16":
            return None
        return next((peak for name, peak in PEAK_FLOPS.items() if name in self.name), None)


@dataclass(frozen=True)
class Plan:
    """What to measure: every combination of the lists."""

    clips: tuple[Clip, ...]
    precisions: tuple[Precision, ...]
    checkpoints: tuple[bool | None, ...]
    compiles: tuple[bool, ...]
    repeats: int

    def pairs(self, *, fused: bool) -> list[list[Case]]:
        """Return the cases in the groups that run side by side."""
        models: list[Which] = ["baseline", "fused"] if fused else ["baseline"]
        choices = product(self.clips, self.precisions, self.checkpoints, self.compiles)
        return [[Case(model, *choice) for model in models] for choice in choices]


@dataclass(frozen=True)
class Report:
    """What `vrtspike bench model` found."""

    machine: Machine
    results: list[Result]

    @property
    def failed(self) -> bool:
        """Tell whether a case came to no figures."""
        return any(result.measured is None for result in self.results)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def find_machine(device: str | None, threads: int | None) -> Machine:
    """Return the machine to measure: its GPU where it has one, unless told otherwise."""
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise ResourceError("there is no GPU on this machine", fix="leave --device cuda away")
    threads = threads or torch.get_num_threads()
    if device == "cpu" or not has_gpu:
        return Machine("cpu", _processor(), threads)
    return Machine("cuda", torch.cuda.get_device_name(), threads)


def parse_size(text: str, batch: int) -> Clip:
    """Read `6x64x64` as frames, height and width."""
    numbers = text.split("x")
    if len(numbers) != 3 or not all(number.isdigit() and int(number) for number in numbers):
        raise ConfigError(
            "not the size of a clip", where="--size", got=text, expected="FRAMESxHEIGHTxWIDTH"
        )
    frames, height, width = (int(number) for number in numbers)
    if frames < 2:
        raise ConfigError(
            "the model needs a neighbour of each frame",
            where="--size",
            got=text,
            expected="2 frames at least",
        )
    return Clip(batch, frames, height, width)


def run_plan(
    settings: ModelSettings, plan: Plan, machine: Machine, update: Callable[[int, int], None]
) -> Report:
    """Measure all that is planned; `update` is told how many steps are done, and of how many."""
    pairs = plan.pairs(fused=settings.fusion != "none")
    results: list[Result] = []
    for done, cases in enumerate(pairs):
        update(done, len(pairs))
        results += measure_side_by_side(settings, cases, machine, plan.repeats)
    update(len(pairs), len(pairs))
    return Report(machine, results)


def measure_side_by_side(
    settings: ModelSettings, cases: Sequence[Case], machine: Machine, repeats: int
) -> list[Result]:
    """Measure cases in turns, each in its own process."""
    with ExitStack() as stack:
        runs = [
            stack.enter_context(_process(settings_of(settings, case), case, machine))
            for case in cases
        ]
        for run in runs:
            run.ask()  # the first pass compiles and fills caches
        for _ in range(repeats):
            for run in runs:
                run.ask()
    results = [run.result(settings_of(settings, run.case), machine) for run in runs]
    baseline = results[0]
    return [baseline, *(_over(result, baseline) for result in results[1:])]


def _over(result: Result, baseline: Result) -> Result:
    """Return a result that knows its ratios to the baseline."""
    if result.measured is None or baseline.measured is None:
        return result
    ratios = {
        name: getattr(result.measured, name) / getattr(baseline.measured, name)
        for name in ("forward_s", "step_s", "forward_bytes", "step_bytes")
    }
    return replace(result, over_baseline=ratios)


class _Run:
    """A case whose process waits for the next pass."""

    def __init__(self, case: Case, pipe: Connection) -> None:
        self.case, self._pipe = case, pipe
        self._passes: list[Pass] = []
        self._failure: str | None = None

    def ask(self) -> None:
        """Have the process make one more pass."""
        if self._failure is not None:
            return
        try:
            self._pipe.send(True)
            answer = self._pipe.recv()
        except (EOFError, OSError):
            answer = "the process died: killed for its memory?"
        if isinstance(answer, Pass):
            self._passes.append(answer)
        else:
            self._failure = answer

    def result(self, settings: ModelSettings, machine: Machine) -> Result:
        """Return the medians of all passes but the first, which warmed up."""
        if self._failure is not None:
            return Result(self.case, None, self._failure)
        timed = self._passes[1:]
        step_s = statistics.median(p.step_s for p in timed)
        costs = measure_costs(
            settings,
            self.case.clip,
            device=torch.device("cpu"),
            precision="float32",
            backward=False,
        )
        step_flops = costs.flops * STEP_OVER_FORWARD
        peak = machine.peak_flops(self.case.precision)
        measured = Measured(
            statistics.median(p.forward_s for p in timed),
            step_s,
            # The least: a process keeps some of what an earlier pass had.
            min(p.forward_bytes for p in self._passes),
            min(p.step_bytes for p in self._passes),
            step_flops,
            None if peak is None else step_flops / step_s / peak,
        )
        return Result(self.case, measured)


@contextmanager
def _process(settings: ModelSettings, case: Case, machine: Machine) -> Iterator[_Run]:
    """Start the process of a case, and end it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=serve,
        args=(theirs, settings, case, torch.device(machine.device), machine.threads),
    )
    process.start()
    theirs.close()  # so that its end is seen when the process dies
    try:
        yield _Run(case, ours)
    finally:
        ours.close()
        process.join()


def _processor() -> str:
    """Return the name of the CPU."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        return next(names, platform.machine())
