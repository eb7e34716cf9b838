"""One optimiser step on all ranks: forward, loss, backward, and a common decision to step or skip.

A step minimises the mean loss over the global batch. The batch is divided into runs of consecutive
samples; each micro-batch gives every rank one run. `fully_shard` averages gradients over ranks, so
the loss of each run is divided by runs / ranks. If the last micro-batch has no run left for a rank,
that rank takes part with black frames and a gradient of zero, so it cannot disturb the others, not
even by a NaN.

After the last micro-batch, one small all-reduce gives every rank the loss, its terms, the gradient
norm, and the notices of all ranks. If the loss or the norm is not finite, all ranks skip the step:
weights, moments and average stay unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from vrtspike.checkpoints.local_part import LocalParameters
from vrtspike.config.choices import Precision
from vrtspike.model.precision import autocast
from vrtspike.samples.order import StepLayout
from vrtspike.training.optim import drop_flow_gradients, step_clipped
from vrtspike.training.parallel import synchronize_gradients

Arrays = Mapping[str, NDArray[Any]]
"""A batch of samples, by name, with the batch as first axis.

A restoring task has `blurred` and `sharp`, uint8 `(b, t, 3, h, w)`, and `voxels`
`(b, t, c, hs, ws)` if the model uses spikes. A flow task has `frames` `(n, 2, 3, h, w)` from 0 to
255, `flow` float32 `(n, 2, h, w)` and `scale` `(n)` (`vrtspike.simulate.flow_pairs`).
"""
Unpacked = tuple[tuple[Any, ...], Tensor]
"""The positional arguments of the model's forward pass, and the target of the loss.

A restoring task has `(blurred, voxels)`, or `(blurred, voxels, True)` if the model also returns its
first guess, and the sharp frames `(b, t, 3, h, w)` in [0, 1]. A flow task has `(pairs, scale)`,
with pairs `(n, 2, 3, h, w)` in [0, 1], and the true flow `(n, 2, h, w)` in pixels.
"""
Unpack = Callable[[Arrays, torch.device], Unpacked]
"""Copy a batch to a device and turn it into the arguments and the target of a step."""


class Loss(Protocol):
    """A weighted sum of terms."""

    weights: dict[str, float]
    """Weight of each term, by name."""

    def __call__(self, output: Any, target: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum, and the unweighted terms by the names of `weights`.

        `output`: what the model returns; `target`: the second part of `Unpacked`. The sum and the
        terms are scalars, means over the batch. See `LossTerms.forward` and `FlowLoss.forward`.
        """
        ...


@dataclass(frozen=True)
class StepResult:
    """The result of a step, equal on all ranks."""

    loss: float
    """Mean over the global batch."""
    terms: Mapping[str, float]
    """Each unweighted term of the loss, mean over the global batch."""
    grad_norm: float
    """L2 norm of all gradients before clipping."""
    stepped: bool
    """False if the step was skipped because the loss or the norm is not finite."""
    notices: frozenset[str]
    """Names of the notices that at least one rank raised."""


def to_device(arrays: Arrays, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Copy a batch of a restoring task to a device, as float32.

    In: uint8 frames `blurred` and `sharp` `(b, t, 3, h, w)`, and `voxels` `(b, t, c, hs, ws)` if
    the model uses spikes. Out: blurred frames and sharp frames in [0, 1], and the voxels or None,
    of the same shapes.
    """
    tensors = moved(arrays, device)
    blurred, sharp = (tensors[name].float().div_(255) for name in ("blurred", "sharp"))
    return blurred, sharp, tensors["voxels"].float() if "voxels" in tensors else None


def moved(arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    """Copy arrays to a device as tensors of the same names, types and shapes."""
    return {
        name: torch.from_numpy(array if array.flags.writeable else array.copy()).to(
            device, non_blocking=True
        )
        for name, array in arrays.items()
    }


class TrainingStep:
    """Take optimiser steps with one model, loss and optimiser.

    `reshard` must be the value that the model was sharded with; if it is false, parameters stay
    gathered during all micro-batches of a step. `clip_norm`: the largest L2 norm of the gradients
    (default: no clipping).
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: LocalParameters,
        loss: Loss,
        optimizer: Optimizer,
        *,
        device: torch.device,
        layout: StepLayout,
        rank: int,
        reshard: bool,
        precision: Precision,
        clip_norm: float | None,
        unpack: Unpack,
    ) -> None:
        self._model, self._parameters = model, parameters
        self._loss, self._optimizer = loss, optimizer
        self._device, self._layout, self._rank, self._reshard = device, layout, rank, reshard
        self._precision, self._clip_norm, self._unpack = precision, clip_norm, unpack

    def __call__(
        self,
        micro_batches: Iterable[Arrays],
        *,
        freeze_flow: bool,
        notices: Mapping[str, bool],
    ) -> StepResult:
        """Run one step over its micro-batches.

        `freeze_flow` leaves the flow parameters unchanged. `notices` says by name what this rank
        has to tell all ranks; it has the same keys on all ranks.
        """
        self._parameters.drop_gradients()
        losses = torch.zeros(1 + len(self._loss.weights), device=self._device)
        for micro, arrays in enumerate(micro_batches):
            if self._layout.accumulation > 1:
                last = micro == self._layout.accumulation - 1
                synchronize_gradients(self._model, last, reshard=self._reshard)
            if self._layout.counts(micro, self._rank):
                losses += self._learn(arrays)
            else:
                self._accompany(arrays)
        gradients = self._parameters.take_gradients()
        if freeze_flow:
            drop_flow_gradients(self._optimizer)
            gradients = [p.grad for p in self._parameters.parts.values() if p.grad is not None]
        return self._finish(losses, gradients, notices)

    def autocast(self) -> torch.autocast:
        """Return the autocast context of the forward pass."""
        return autocast(self._device, self._precision)

    def _learn(self, arrays: Arrays) -> Tensor:
        """Add the gradients of a run; return its loss and terms, divided as the gradients are."""
        inputs, target = self._unpack(arrays, self._device)
        with self.autocast():
            output = self._model(*inputs)
        loss, terms = self._loss(output, target)
        # This equals the number of micro-batches if the number of runs is a multiple of the ranks.
        divisor = self._layout.runs / self._layout.ranks
        (loss / divisor).backward()  # type: ignore[no-untyped-call]
        return torch.stack([loss, *(terms[name] for name in self._loss.weights)]).detach() / divisor

    def _accompany(self, arrays: Arrays) -> None:
        """Take part in the collectives of a micro-batch, and add gradients of zero."""
        inputs, _ = self._unpack(arrays, self._device)
        with self.autocast():
            output = self._model(
                *(torch.zeros_like(x) if isinstance(x, Tensor) else x for x in inputs)
            )
        outputs = [output] if isinstance(output, Tensor) else list(output)
        zeros = [torch.zeros_like(output) for output in outputs]
        torch.autograd.backward(outputs, zeros)

    def _finish(
        self, losses: Tensor, gradients: list[Tensor], notices: Mapping[str, bool]
    ) -> StepResult:
        """Sum the figures over all ranks; then clip and step, or skip, on all of them alike."""
        squares = torch.stack(torch._foreach_norm(gradients)).double().square().sum()
        # All copies of the weights have the same gradients, so only the first copy counts.
        squares = squares * (self._parameters.replica == 0)
        names = sorted(notices)
        flags = torch.tensor([notices[name] for name in names], dtype=squares.dtype)
        flags = flags.to(self._device, non_blocking=True)
        figures = torch.cat([squares[None], losses.double(), flags])
        dist.all_reduce(figures)
        square_sum, *sums = figures.tolist()
        means = [value / self._layout.ranks for value in sums[: len(losses)]]
        norm = math.sqrt(square_sum)
        finite = math.isfinite(means[0]) and math.isfinite(norm)
        if finite:
            step_clipped(self._optimizer, norm, self._clip_norm)
        return StepResult(
            loss=means[0],
            terms=dict(zip(self._loss.weights, means[1:], strict=True)),
            grad_norm=norm,
            stepped=finite,
            notices=frozenset(
                name for name, raised in zip(names, sums[len(losses) :], strict=True) if raised
            ),
        )
