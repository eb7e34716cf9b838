"""What a configuration costs: model, memory of a training worker, and where it is spent.

In: a configuration. Out: a `Description`: the model's parts, the memory of a training step with and
without activation checkpointing, and what a worker holds beside it. Memory is in bytes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import nn

from vrtspike.model.build import build_model
from vrtspike.model.costs import MAP_BLOCKS, Clip, Costs, measure_costs
from vrtspike.settings import Config, ModelSettings, Precision, TrainSettings
from vrtspike.training.parallel import Sharded


@dataclass(frozen=True)
class StateBytes:
    """What a worker holds between steps, and the weights that it gathers in one."""

    weights: int
    gradients: int
    moments: int
    average: int
    gathered: int

    @property
    def total(self) -> int:
        """Return the sum."""
        return self.weights + self.gradients + self.moments + self.average + self.gathered


@dataclass(frozen=True)
class Description:
    """What `vrtspike describe` tells."""

    clip: Clip
    """One micro-batch of a worker."""
    precision: Precision
    device: str
    """Where tensors were counted."""
    note: str
    """How that differs from what training will take; or empty."""
    costs: Costs
    """As configured."""
    activations_kept: int
    """Without activation checkpointing."""
    activations_recomputed: int
    """With checkpointing of attention and MLPs."""
    state: StateBytes

    @property
    def peak(self) -> int:
        """Return the greatest memory of a worker, as configured."""
        return self.costs.activations + self.state.total

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        spike_share = {
            "parameters": self.costs.spike_share("parameters"),
            "flops": self.costs.spike_share("flops"),
            "kept": self.costs.spike_share("kept"),
        }
        sums = {"parameters": self.costs.parameters, "flops": self.costs.flops, "peak": self.peak}
        return {**sums, "spike_share": spike_share, **asdict(self)}


def describe(config: Config) -> Description:
    """Count what one worker of a training run holds and computes.

    The networks of the loss terms `vgg` and `lpips` are not counted.
    """
    train, data = config.train, config.data
    clip = Clip(
        train.batch // (train.workers * train.accumulation), data.frames, data.crop, data.crop
    )
    device, note = "cuda" if train.gpu else "cpu", ""
    if train.gpu and not torch.cuda.is_available():
        device = "cpu"
        note = "there is no GPU here; what a CPU's functions keep was counted"
    elif not train.gpu:
        note = f"holes of the heap come on top, unless {MAP_BLOCKS}=1048576 is in the environment"

    def count(attention: bool, mlp: bool) -> Costs:
        changes = {"checkpoint_attention": attention, "checkpoint_mlp": mlp}
        settings = config.model.model_copy(update=changes)
        return measure_costs(settings, clip, device=torch.device(device), precision=train.precision)

    configured = (config.model.checkpoint_attention, config.model.checkpoint_mlp)
    counted = {choice: count(*choice) for choice in {configured, (False, False), (True, True)}}
    return Description(
        clip,
        train.precision,
        device,
        note,
        counted[configured],
        counted[False, False].activations,
        counted[True, True].activations,
        _state(config.model, train),
    )


def _state(model: ModelSettings, train: TrainSettings) -> StateBytes:
    """Return what one of the workers that share a model holds of it."""
    with torch.device("meta"):
        built = build_model(model)
    whole = _bytes(built)
    share = -(-whole // train.workers)
    blocks = sorted(_bytes(block) for block in cast(Sharded, built).blocks())
    return StateBytes(
        weights=share,
        # Between the micro-batches of a step gradients are not divided over the workers.
        gradients=share if train.accumulation == 1 else whole,
        moments=2 * share,
        average=share if train.ema else 0,
        # The next block is gathered while one computes; what is in no block stays.
        gathered=whole - sum(blocks[:-2]) if train.reshard else whole,
    )


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())
