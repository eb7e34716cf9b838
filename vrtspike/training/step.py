"""One optimiser step on every rank: forward, loss, backward, and a decision taken together.

Gradients of a micro-batch are averaged over ranks by `fully_shard`; the loss of each micro-batch is
divided by their number, so a step minimises the mean over the global batch, however it is split.
After the last micro-batch one small all-reduce tells every rank the loss, the gradient norm and
whether somebody was asked to stop. A loss or norm that is not finite makes all ranks skip the step
alike: weights, moments and average stay as they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from vrtspike.data.voxelize import normalize_voxels
from vrtspike.losses import LossTerms
from vrtspike.model.precision import autocast
from vrtspike.settings import Precision
from vrtspike.training.local import LocalParameters
from vrtspike.training.optim import drop_flow_gradients
from vrtspike.training.parallel import synchronize_gradients


@dataclass(frozen=True)
class VoxelScale:
    """How counts become voxels: the threshold, and the kind of normalisation."""

    threshold: float
    mode: Literal["rate", "log1p"]


@dataclass(frozen=True)
class StepResult:
    """What a step came to, equal on all ranks."""

    loss: float
    grad_norm: float
    stepped: bool
    stop: bool


def to_device(
    arrays: Mapping[str, NDArray[Any]], device: torch.device, scale: VoxelScale | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Turn stored bytes into what the model takes: blurred, sharp in [0, 1], and voxels."""
    moved = {
        name: torch.from_numpy(array if array.flags.writeable else array.copy()).to(
            device, non_blocking=True
        )
        for name, array in arrays.items()
    }
    blurred, sharp = (moved[name].float().div_(255) for name in ("blurred", "sharp"))
    if scale is None:
        return blurred, sharp, None
    voxels = normalize_voxels(moved["counts"], moved["steps"], scale.threshold, scale.mode)
    return blurred, sharp, voxels


class TrainingStep:
    """Take optimiser steps; hold what stays the same between them."""

    def __init__(
        self,
        model: nn.Module,
        parameters: LocalParameters,
        loss: LossTerms,
        optimizer: Optimizer,
        *,
        device: torch.device,
        accumulation: int,
        precision: Precision,
        clip_norm: float | None,
        voxels: VoxelScale | None,
    ) -> None:
        self._model, self._parameters = model, parameters
        self._loss, self._optimizer = loss, optimizer
        self._device, self._accumulation = device, accumulation
        self._precision, self._clip_norm, self._voxels = precision, clip_norm, voxels

    def __call__(
        self,
        micro_batches: Iterable[Mapping[str, NDArray[Any]]],
        *,
        freeze_flow: bool,
        stop: bool,
    ) -> StepResult:
        """Run one step over its micro-batches."""
        self._parameters.drop_gradients()
        total = torch.zeros((), device=self._device)
        for micro, arrays in enumerate(micro_batches, 1):
            if self._accumulation > 1:
                synchronize_gradients(self._model, micro == self._accumulation)
            blurred, sharp, voxels = to_device(arrays, self._device, self._voxels)
            with self.autocast():
                restored = self._model(blurred, voxels)
            loss = self._loss(restored, sharp)[0] / self._accumulation
            loss.backward()
            total += loss.detach()
        gradients = self._parameters.take_gradients()
        if freeze_flow:
            drop_flow_gradients(self._optimizer)
            gradients = [p.grad for p in self._parameters.parts.values() if p.grad is not None]
        return self._finish(total, gradients, stop)

    def autocast(self) -> torch.autocast:
        """Return the arithmetic of the forward pass."""
        return autocast(self._device, self._precision)

    def _finish(self, loss: Tensor, gradients: list[Tensor], stop: bool) -> StepResult:
        """Agree with all ranks on the outcome, then clip and step, or skip."""
        squares = torch.stack(torch._foreach_norm(gradients)).double().square().sum()
        flags = torch.stack([loss.double(), squares, squares.new_tensor(float(stop))])
        dist.all_reduce(flags)
        loss_sum, square_sum, stops = flags.tolist()
        mean, norm = loss_sum / dist.get_world_size(), math.sqrt(square_sum)
        finite = math.isfinite(mean) and math.isfinite(norm)
        if finite:
            if self._clip_norm is not None and norm > self._clip_norm:
                torch._foreach_mul_(gradients, self._clip_norm / (norm + 1e-6))
            self._optimizer.step()
        return StepResult(mean, norm, finite, stops > 0)
