"""How well more workers pay: which cases are measured, and what comes of their turns.

    weak scaling     the samples of a worker stay as configured; efficiency = t(1) / t(N)
    apart            the same, and none talks to another: what the machine itself allows, whose
                     memory, caches and power many workers share; weak scaling over this is what
                     training together costs
    strong scaling   the samples of a step stay; efficiency = t(1) / (N t(N))

with t the time of a step, and the fewest workers that were measured instead of one. A ratio is the
median of those of the turns: the two cases of one turn saw the same machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vrtspike.bench.describe import unbuilt
from vrtspike.bench.process_pool import have_own
from vrtspike.bench.step_model import Sent, Work, count_sent
from vrtspike.bench.worker import Taken
from vrtspike.config.config import Config

Kind = Literal["weak", "apart", "strong"]


@dataclass(frozen=True)
class Case:
    """Workers, and the samples of a step over all of them."""

    workers: int
    batch: int
    apart: bool = False


@dataclass(frozen=True)
class Scaled:
    """One number of workers."""

    kind: Kind
    workers: int
    batch: int
    """Samples of a step."""
    step_s: float
    """Median."""
    samples_s: float
    efficiency: float
    """Against the fewest workers."""
    collective_share: float
    """Of the steps' time, mean over workers and turns."""
    cpu_s: float
    """CPU time of a worker's step, mean: what others on the machine cost shows in `step_s` alone.
    """
    sent: Sent
    """What a worker was seen to send in a step."""
    predicted: Sent
    """What it should send, by `vrtspike.bench.step_model`."""
    peak_bytes: int
    """Greatest memory of a worker."""
    own: bool
    """Each worker has cores, or a GPU, of its own."""
    flops_s: float
    """Operations a second of one worker."""


def cases_of(config: Config, workers: Sequence[int]) -> list[tuple[Kind, Case]]:
    """Return the cases of each kind of scaling; some may be the same."""
    train = config.train
    own = train.micro_batch * train.accumulation
    runs = train.batch // train.micro_batch
    weak: list[tuple[Kind, Case]] = [("weak", Case(n, n * own)) for n in workers]
    apart: list[tuple[Kind, Case]] = [("apart", Case(n, n * own, n > 1)) for n in workers]
    return weak + apart + [("strong", Case(n, train.batch)) for n in workers if runs % n == 0]


def scaled_of(
    config: Config,
    named: Sequence[tuple[Kind, Case]],
    turns: Mapping[Case, Sequence[Sequence[Taken]]],
    work: Work,
    *,
    gpu: bool,
) -> list[Scaled]:
    """Evaluate the turns of each case; `turns` has the workers of each turn."""
    model, train = unbuilt(config.model), config.train
    found = []
    for kind, case in named:
        first = next(other for name, other in named if name == kind)
        own = [_step_s(turn) for turn in turns[case]]
        base = [_step_s(turn) for turn in turns[first]]
        growth = case.workers / first.workers if kind == "strong" else 1
        ratios = [b / (growth * t) for b, t in zip(base, own, strict=True)]
        members = [member for turn in turns[case] for member in turn]
        step_s = statistics.median(s for member in members for s in member.seconds)
        accumulation = -(-case.batch // (train.micro_batch * case.workers))
        flops = work.flops / work.samples * train.micro_batch * accumulation
        found.append(
            Scaled(
                kind,
                case.workers,
                case.batch,
                step_s,
                case.batch / step_s,
                statistics.median(ratios),
                statistics.mean(m.collective_s / sum(m.seconds) for m in members),
                statistics.mean(m.cpu_s / len(m.seconds) for m in members),
                members[0].sent,
                count_sent(
                    model,
                    ranks=1 if case.apart else case.workers,
                    copies=1,
                    accumulation=accumulation,
                    reshard=train.reshard,
                ),
                max(m.peak_bytes for m in members),
                have_own(config, case.workers, gpu=gpu),
                flops / step_s,
            )
        )
    return found


def _step_s(turn: Sequence[Taken]) -> float:
    """Return the seconds of a step in a turn; workers that train together agree on it."""
    return statistics.mean(statistics.median(member.seconds) for member in turn)
