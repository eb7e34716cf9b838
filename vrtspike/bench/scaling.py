"""What several training workers cost and give on this machine, and a step on many GPUs.

In: a configuration, numbers of workers, and of GPUs. Out: a `ScalingReport`: weak and strong
scaling (`vrtspike.bench.efficiency`), what checkpoints cost (`vrtspike.bench.save_cost`), and
predictions (`vrtspike.bench.step_model`). Each number of workers is a team of processes
(`vrtspike.bench.worker`), and all teams take turns (A B A B ...), so that all see the same machine.
A team that waits does not compute.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vrtspike.bench.background_load import watching_others
from vrtspike.bench.efficiency import Case, Scaled, cases_of, scaled_of
from vrtspike.bench.model import Machine, find_machine
from vrtspike.bench.process_pool import Team, have_own, team
from vrtspike.bench.save_cost import Saving, measure_saving
from vrtspike.bench.step_model import (
    ASSUMED_FLOPS,
    COMMUNICATION,
    Assumptions,
    Prediction,
    Work,
    count_work,
    predict,
)
from vrtspike.bench.worker import Taken, Turn
from vrtspike.config.config import Config
from vrtspike.errors import ResourceError
from vrtspike.runtime.progress import counted
from vrtspike.storage.folder import Folder
from vrtspike.training.tasks import check_restores

USUAL_WORKERS = (1, 2, 4)


@dataclass(frozen=True)
class ScalingPlan:
    """What to measure."""

    workers: tuple[int, ...] = ()
    """Rising; none: 1, 2 and 4, as far as there are cores or GPUs."""
    steps: int = 4
    """Timed steps of a turn."""
    repeats: int = 5
    """Turns of each case."""


@dataclass(frozen=True)
class Fleet:
    """What to predict a step for."""

    gpus: tuple[int, ...]
    gpus_per_node: int
    flops_s: float | None
    """Operations that a GPU computes a second; None: as measured on the GPU here, or else assumed.
    """
    network_bits_s: float

    def assumptions(self, measured: float | None) -> Assumptions:
        """Return what is taken for granted; `measured` is the speed of a GPU here, if known."""
        flops_s, source = self.flops_s, "given"
        if flops_s is None and measured is not None:
            flops_s, source = measured, "measured here"
        elif flops_s is None:
            flops_s, source = ASSUMED_FLOPS, "ASSUMED: 40 % of what an H100 reaches in bfloat16"
        return Assumptions(flops_s, source, self.network_bits_s, self.gpus_per_node)


@dataclass(frozen=True)
class ScalingReport:
    """What was measured, and what the model of a step says."""

    machine: Machine
    cores: int
    others: float
    """Cores that other processes kept busy meanwhile, on average."""
    scaled: list[Scaled]
    saving: Saving | None
    work: Work
    assumed: Assumptions
    predictions: list[Prediction]

    def premises(self) -> list[str]:
        """Say what the predictions rest on."""
        work, assumed = self.work, self.assumed
        lines = [
            f"a GPU: {work.samples} samples and {work.flops / 1e12:.3g} TFLOP a step at "
            f"{assumed.flops_s / 1e12:.3g} TFLOP/s ({assumed.flops_from}; --tflops)",
            f"needed: for communication to take {COMMUNICATION:.0%} of the computing time, none of "
            "it hidden behind computing",
            f"samples/s, efficiency: nodes of {assumed.gpus_per_node} GPUs that send "
            f"{assumed.network_bits_s / 1e9:g} Gbit/s to others (ASSUMED; --network)",
        ]
        return lines + ([f"memory: {work.note}"] if work.note else [])

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with what tables derive."""
        facts = asdict(self)
        if self.saving is not None:
            facts["saving"]["cost"] = self.saving.cost
        for entry, found in zip(facts["predictions"], self.predictions, strict=True):
            entry |= {
                "memory": found.memory,
                "samples_s": found.samples_s,
                "efficiency": found.efficiency,
            }
        return facts


def run_scaling(
    config: Config, plan: ScalingPlan | None, fleet: Fleet, update: Callable[[int, int], None]
) -> ScalingReport:
    """Measure what is planned, if anything is, and predict; `update` is told how many turns are
    done, and of how many."""
    check_restores(config, "scaling")
    machine = find_machine(None, config.train.threads_per_worker)
    if plan is not None:
        machine, plan = complete(config, plan)
    update(0, 1)
    work = count_work(config)
    # What cannot be predicted is refused before anything is measured.
    predict(config, work, fleet.gpus, fleet.assumptions(None))
    scaled: list[Scaled] = []
    saving, speed, others = None, None, 0.0
    if plan is None:
        update(1, 1)
    else:
        scaled, saving, others = measure_scaling(config, plan, machine, work, update)
        speed = scaled[0].flops_s if machine.device == "cuda" else None
    assumed = fleet.assumptions(speed)
    predictions = predict(config, work, fleet.gpus, assumed)
    cores = len(os.sched_getaffinity(0))
    return ScalingReport(machine, cores, others, scaled, saving, work, assumed, predictions)


def complete(config: Config, plan: ScalingPlan) -> tuple[Machine, ScalingPlan]:
    """Return the machine, and the plan with its numbers of workers; raise ResourceError where there
    are too few GPUs."""
    gpu, threads = config.train.gpu, config.train.threads_per_worker
    if gpu and not torch.cuda.is_available():
        raise ResourceError(
            "there is no GPU on this machine",
            where="train.gpu",
            got=True,
            fix="measure on CPUs with train.gpu=false, or only predict with --no-measure",
        )
    machine = find_machine("cuda" if gpu else "cpu", threads)
    most = torch.cuda.device_count() if gpu else len(os.sched_getaffinity(0)) // threads
    usual = [number for number in USUAL_WORKERS if number <= max(1, most)]
    workers = tuple(sorted(set(plan.workers or usual)))
    if gpu and workers[-1] > most:
        raise ResourceError(
            "more workers than GPUs", where="--workers", got=workers[-1], expected=f"at most {most}"
        )
    return machine, replace(plan, workers=workers)


def measure_scaling(
    config: Config,
    plan: ScalingPlan,
    machine: Machine,
    work: Work,
    update: Callable[[int, int], None],
) -> tuple[list[Scaled], Saving, float]:
    """Measure scaling, then saving with the most workers that need not share cores; return also the
    cores that others used meanwhile."""
    gpu = machine.device == "cuda"
    named = cases_of(config, plan.workers)
    cases = list(dict.fromkeys(case for _, case in named))
    total = (plan.repeats + 1) * len(cases) + 2 * plan.repeats + 1
    turned = counted(update, total)
    with _teams(config, cases, gpu=gpu) as (teams, checkpoints), watching_others() as others:
        turns: dict[Case, list[list[Taken]]] = {case: [] for case in cases}
        for repeat in range(plan.repeats + 1):
            for case in cases:
                taken = teams[case.workers, case.apart].take(
                    Turn(case.batch, plan.steps if repeat else 1)
                )
                if repeat:  # The first turn warmed up.
                    turns[case].append(taken)
                turned()
        own = [number for number in plan.workers if have_own(config, number, gpu=gpu)]
        chosen = teams[max(own, default=plan.workers[0]), False]
        saving = measure_saving(config, chosen, plan.repeats, checkpoints, turned)
    return scaled_of(config, named, turns, work, gpu=gpu), saving, others.cores


@contextmanager
def _teams(
    config: Config, cases: Iterable[Case], *, gpu: bool
) -> Iterator[tuple[dict[tuple[int, bool], Team], Folder]]:
    """Start the teams of some cases, by their size and whether they work apart; their checkpoints
    go where those of the run would."""
    checkpoints = Folder.at(config.run.root).below(f"bench-scaling-{uuid.uuid4().hex[:8]}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vrtspike-bench-")))
        stack.callback(checkpoints.clear)
        teams = {}
        for number, apart in dict.fromkeys((case.workers, case.apart) for case in cases):
            started = team(
                config, number, apart=apart, gpu=gpu, folder=folder, checkpoints=checkpoints
            )
            teams[number, apart] = stack.enter_context(started)
        yield teams, checkpoints
