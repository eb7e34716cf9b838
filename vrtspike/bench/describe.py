"""What a configuration costs: model, memory of a training worker, and where it is spent.

In: a configuration. Out: a `Description`: the model's parts, the memory of a training step with and
without activation checkpointing, and what a worker holds beside it. Memory is in bytes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import nn

from vrtspike.config.choices import Precision
from vrtspike.config.config import Config
from vrtspike.config.model import ModelSettings
from vrtspike.config.train import TrainSettings
from vrtspike.model.build import build_model
from vrtspike.model.costs import MAP_BLOCKS, Clip, Costs, measure_costs
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
    device, note = counting_device(train)

    def count(attention: bool, mlp: bool) -> Costs:
        changes = {"checkpoint_attention": attention, "checkpoint_mlp": mlp}
        settings = config.model.model_copy(update=changes)
        return measure_costs(settings, clip, device=device, precision=train.precision)

    configured = (config.model.checkpoint_attention, config.model.checkpoint_mlp)
    counted = {choice: count(*choice) for choice in {configured, (False, False), (True, True)}}
    return Description(
        clip,
        train.precision,
        device.type,
        note,
        counted[configured],
        counted[False, False].activations,
        counted[True, True].activations,
        state_bytes(unbuilt(config.model), train, train.workers),
    )


def counting_device(train: TrainSettings) -> tuple[torch.device, str]:
    """Return where the tensors of a training step can be counted, and how that differs."""
    if not train.gpu:
        note = f"holes of the heap come on top, unless {MAP_BLOCKS}=1048576 is in the environment"
        return torch.device("cpu"), note
    if not torch.cuda.is_available():
        return torch.device("cpu"), "there is no GPU here; what a CPU's functions keep was counted"
    return torch.device("cuda"), ""


def unbuilt(settings: ModelSettings) -> nn.Module:
    """Return a model without memory: shapes alone."""
    with torch.device("meta"):
        return build_model(settings)


def state_bytes(built: nn.Module, train: TrainSettings, ranks: int) -> StateBytes:
    """Return what one of `ranks` workers that share a model holds of it."""
    whole = _bytes(built)
    share = -(-whole // ranks)
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
