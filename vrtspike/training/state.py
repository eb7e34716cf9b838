"""The training state: everything that a run needs to continue, as a flat dictionary of tensors.

    model/<name>                          parameters and buffers
    average/<name>                        the moving average of the parameters
    optimizer/<name>/exp_avg[_sq]         Adam's moments of parameters that have been updated
    optimizer/steps                       updates of each parameter, in the model's order; -1: none
    rng/<rank>/cpu, rng/<rank>/gpu        torch's random generators of each rank

All other randomness (sample order, crops, flips) is a function of seed, epoch and sample, and the
learning rate is a function of the step; neither needs state.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from vrtspike.checkpoints.local_part import LocalParameters, like
from vrtspike.checkpoints.manifest import Checkpoint
from vrtspike.checkpoints.read_write import load, stored_keys
from vrtspike.training.ema import AveragedWeights

MOMENTS = ("exp_avg", "exp_avg_sq")
STEPS = "optimizer/steps"


class TrainingState:
    """Collect and restore this rank's part of the training state."""

    def __init__(
        self,
        model: nn.Module,
        parameters: LocalParameters,
        optimizer: Optimizer,
        average: AveragedWeights | None,
        *,
        rank: int,
        device: torch.device,
    ) -> None:
        self._model, self._parameters = model, parameters
        self._optimizer, self._average = optimizer, average
        self._rank, self._device = rank, device

    def collect(self) -> dict[str, Any]:
        """Return the current state; its tensors share memory with the model and the optimiser."""
        state = self._weights() | self._generators()
        steps = []
        for name, part in self._parameters.parts.items():
            values = self._optimizer.state.get(part, {})
            for key in MOMENTS:
                if key in values:
                    state[f"optimizer/{name}/{key}"] = self._sharded(name, values[key])
            steps.append(float(values["step"]) if values else -1.0)
        state[STEPS] = torch.tensor(steps)
        return state

    def restore(self, saved: Checkpoint, *, group: dist.ProcessGroup | None = None) -> bool:
        """Load a checkpoint; return whether it contained this rank's random generators.

        All ranks call it. Raises CheckpointError on all ranks if loading fails on one; they
        exchange errors through `group`.
        """
        keys = stored_keys(saved)
        state = self._weights()
        moments = {
            (name, key): torch.zeros_like(part.detach())
            for name, part in self._parameters.parts.items()
            for key in MOMENTS
            if f"optimizer/{name}/{key}" in keys
        }
        for (name, key), value in moments.items():
            state[f"optimizer/{name}/{key}"] = self._sharded(name, value)
        state[STEPS] = torch.zeros(len(self._parameters.parts))
        generators = self._generators()
        has_generators = generators.keys() <= keys
        load(saved, state | generators if has_generators else state, group=group)
        for (name, key), value in moments.items():
            self._optimizer.state[self._parameters.parts[name]][key] = value
        for part, step in zip(self._parameters.parts.values(), state[STEPS], strict=True):
            if step >= 0:
                self._optimizer.state[part]["step"] = step.clone().to(self._device)
        if has_generators:
            self._set_generators(generators)
        return has_generators

    def _weights(self) -> dict[str, Any]:
        state = {f"model/{name}": value for name, value in self._model.state_dict().items()}
        if self._average is not None:
            for name, part in self._average.parts.items():
                state[f"average/{name}"] = self._sharded(name, part)
        return state

    def _sharded(self, name: str, part: Tensor) -> Tensor:
        """Return this rank's slice as a tensor sharded like the parameter `name`."""
        return like(self._parameters.wholes[name].detach(), part)

    def _generators(self) -> dict[str, Tensor]:
        states = {f"rng/{self._rank}/cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            states[f"rng/{self._rank}/gpu"] = torch.cuda.get_rng_state(self._device)
        return states

    def _set_generators(self, states: dict[str, Tensor]) -> None:
        torch.set_rng_state(states[f"rng/{self._rank}/cpu"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(states[f"rng/{self._rank}/gpu"], self._device)
