"""What a training step moves, holds and computes on N GPUs, before any is rented.

In: a configuration, its description (`vrtspike.bench.describe`), the GPUs, and assumptions about
their speed and the network's. Out: a `Prediction` for each number of GPUs and each way to shard.
Nothing runs: what `vrtspike.training.parallel` makes `fully_shard` move follows from the shapes of
the parameters, in float32 whatever the precision:

    all-gather       all parameters, for the forward and again for the backward pass of every
                     micro-batch (`train.reshard`), or once a step
    reduce-scatter   all gradients, once a step
    all-reduce       the scattered gradients, over the copies of the weights, once a step

By rings, a rank of n sends (n - 1) / n of the bytes of the whole in the first two, and twice that
of what it reduces in the third. A ring over all ranks leaves each node once, so a node sends to
others what one rank sends; of the all-reduce there is a ring for every GPU of a node.

Samples of a GPU stay as configured (`train.micro_batch` x `train.accumulation`), so the batch grows
with the GPUs. Communication is not taken to hide behind computing, though most of it can: the
bandwidth that is called for is more than enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

from vrtspike.bench.describe import Description, StateBytes, state_bytes, unbuilt
from vrtspike.bench.model import PEAK_FLOPS, STEP_OVER_FORWARD
from vrtspike.config.config import Config
from vrtspike.errors import ConfigError

USUAL_NODES = (1, 2, 4, 8)
ASSUMED_FLOPS = 0.4 * PEAK_FLOPS["H100"]
"""What a GPU is taken to compute a second. Most models reach less; then less bandwidth will do."""
COMMUNICATION = 0.1
"""The share of the computing time that communication may take."""


@dataclass(frozen=True)
class Sent:
    """Bytes that one rank sends in a step."""

    gathered: int
    scattered: int
    reduced: int

    @property
    def total(self) -> int:
        """Return the sum."""
        return self.gathered + self.scattered + self.reduced


@dataclass(frozen=True)
class Assumptions:
    """What the model takes for granted."""

    flops_s: float = ASSUMED_FLOPS
    """Operations that a GPU computes a second."""
    network_bits_s: float = 100e9
    """What a node can send to others."""
    gpus_per_node: int = 8

    @property
    def usual_gpus(self) -> tuple[int, ...]:
        """Return one GPU, one node and several."""
        return (1, *(count * self.gpus_per_node for count in USUAL_NODES))


@dataclass(frozen=True)
class Work:
    """What one GPU computes in a step, and keeps for it."""

    samples: int
    flops: int
    """Operations of forward and backward passes; what is recomputed is not counted twice."""
    activations: int
    """Greatest bytes of a micro-batch."""


@dataclass(frozen=True)
class Prediction:
    """A step on some GPUs. Rates are in bytes a second."""

    gpus: int
    shard_over: Literal["all", "node"]
    samples: int
    """Of a step, over all GPUs."""
    sent: Sent
    between_bytes: int
    """Bytes that a node sends to others in a step."""
    state: StateBytes
    activations: int
    computing_s: float
    needed_inside: float
    """What a GPU must send inside its node for communication to take a tenth of the computing."""
    needed_between: float
    """What a node must send to others for that."""
    step_s: float
    """With the assumed network, which is waited for; inside a node communication is free."""

    @property
    def memory(self) -> int:
        """Return the greatest bytes of a GPU."""
        return self.activations + self.state.total

    @property
    def samples_s(self) -> float:
        """Return the samples a second of all GPUs."""
        return self.samples / self.step_s

    @property
    def efficiency(self) -> float:
        """Return the share of a step that is not spent waiting for the network."""
        return self.computing_s / self.step_s

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with what the table derives."""
        derived = ("memory", "samples_s", "efficiency")
        return asdict(self) | {name: getattr(self, name) for name in derived}


def count_work(described: Description, accumulation: int) -> Work:
    """Return a step of one GPU: `accumulation` of the micro-batches that were described."""
    costs = described.costs
    flops = STEP_OVER_FORWARD * costs.flops * accumulation
    return Work(described.clip.batch * accumulation, flops, costs.activations)


def count_sent(
    model: nn.Module, *, ranks: int, copies: int, accumulation: int, reshard: bool
) -> Sent:
    """Return what a rank sends in a step, where `ranks` share each of `copies` of the weights."""
    slice_bytes = _slice_bytes(model, ranks)
    gathers = 2 * accumulation if reshard else 1
    once = (ranks - 1) * slice_bytes
    return Sent(gathers * once, once, 2 * (copies - 1) * slice_bytes // copies)


def predict(
    config: Config, work: Work, gpus: Iterable[int], assumed: Assumptions
) -> list[Prediction]:
    """Return a prediction for each number of GPUs; on several nodes, for each way to shard."""
    model, node = unbuilt(config.model), assumed.gpus_per_node
    found = []
    for number in gpus:
        ways: Sequence[Literal["all", "node"]] = ("all",) if number <= node else ("all", "node")
        found += [_predict(config, model, work, number, way, assumed) for way in ways]
    return found


def _predict(
    config: Config,
    model: nn.Module,
    work: Work,
    gpus: int,
    shard_over: Literal["all", "node"],
    assumed: Assumptions,
) -> Prediction:
    train = config.train
    copies = gpus // assumed.gpus_per_node if shard_over == "node" else 1
    ranks = gpus // copies
    sent = count_sent(
        model, ranks=ranks, copies=copies, accumulation=train.accumulation, reshard=train.reshard
    )
    inside = sent.gathered + sent.scattered
    if gpus <= assumed.gpus_per_node:
        between = 0
    elif shard_over == "all":
        between = inside
    else:
        between = sent.reduced * assumed.gpus_per_node
    computing_s = work.flops / assumed.flops_s
    return Prediction(
        gpus=gpus,
        shard_over=shard_over,
        samples=gpus * work.samples,
        sent=sent,
        between_bytes=between,
        state=state_bytes(model, train, ranks),
        activations=work.activations,
        computing_s=computing_s,
        needed_inside=inside / (COMMUNICATION * computing_s),
        needed_between=between / (COMMUNICATION * computing_s),
        step_s=computing_s + 8 * between / assumed.network_bits_s,
    )


def premises(work: Work, assumed: Assumptions) -> list[str]:
    """Say what predictions rest on."""
    return [
        f"a GPU: {work.samples} samples and {work.flops / 1e12:.3g} TFLOP a step at "
        f"{assumed.flops_s / 1e12:.3g} TFLOP/s (--tflops; an H100 reaches "
        f"{PEAK_FLOPS['H100'] / 1e12:.0f} in bfloat16 products)",
        f"needed: for communication to take {COMMUNICATION:.0%} of the computing time, none of it "
        "hidden behind computing",
        f"samples/s, efficiency: nodes of {assumed.gpus_per_node} GPUs (--gpus-per-node) that send "
        f"{assumed.network_bits_s / 1e9:g} Gbit/s to others (--network)",
    ]


def _slice_bytes(model: nn.Module, ranks: int) -> int:
    """Return the bytes of one rank's slices, which `fully_shard` pads to equal rows."""
    return sum(
        -(-p.shape[0] // ranks) * math.prod(p.shape[1:]) * p.element_size()
        for p in model.parameters()
    )


def check_nodes(gpus: Iterable[int], node: int) -> None:
    """Refuse a number of GPUs that leaves a node in part unused."""
    for number in gpus:
        if number > node and number % node:
            raise ConfigError(
                "not a whole number of nodes",
                where="--gpus",
                got=number,
                expected=f"a multiple of --gpus-per-node {node}, or less than it",
            )
