"""One optimiser step on every rank: forward, loss, backward, and a decision taken together.

A step minimises the mean over the global batch, however its runs of samples are divided:
`fully_shard` averages gradients over ranks, so the loss of each run is divided by runs / ranks. A
rank that has no run left in the last micro-batch takes part with black frames and a gradient of
zero, so that nothing of the run that it repeats, not even a NaN, reaches the others.

After the last micro-batch one small all-reduce tells every rank the loss, its terms, the gradient
norm, and the notices that any rank was given. A loss or norm that is not finite makes all ranks
skip the step alike: weights, moments and average stay as they were.
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
from vrtspike.samples.order import Share
from vrtspike.training.optim import drop_flow_gradients, step_clipped
from vrtspike.training.parallel import synchronize_gradients

Arrays = Mapping[str, NDArray[Any]]
Unpacked = tuple[tuple[Any, ...], Tensor]
"""What a model takes, and what it is to give."""
Unpack = Callable[[Arrays, torch.device], Unpacked]


class Loss(Protocol):
    """A weighted sum of terms."""

    weights: dict[str, float]

    def __call__(self, given: Any, wanted: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum and every term before its weight."""
        ...


@dataclass(frozen=True)
class StepResult:
    """What a step came to, equal on all ranks."""

    loss: float
    """Mean over the global batch."""
    terms: Mapping[str, float]
    """Each term of the loss before its weight, mean over the global batch."""
    grad_norm: float
    """Norm before clipping."""
    stepped: bool
    """False where loss or norm is not finite."""
    notices: frozenset[str]
    """What any rank was told before the step."""


def to_device(arrays: Arrays, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Turn a batch of samples into what the model takes.

    Returns blurred and sharp frames `(b, t, 3, h, w)` in [0, 1], and voxels `(b, t, c, hs, ws)` or
    None, all float32.
    """
    tensors = moved(arrays, device)
    blurred, sharp = (tensors[name].float().div_(255) for name in ("blurred", "sharp"))
    return blurred, sharp, tensors["voxels"].float() if "voxels" in tensors else None


def moved(arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    """Copy arrays to where they are used."""
    return {
        name: torch.from_numpy(array if array.flags.writeable else array.copy()).to(
            device, non_blocking=True
        )
        for name, array in arrays.items()
    }


class TrainingStep:
    """Take optimiser steps; hold what stays the same between them.

    `reshard` is how the model was sharded: without it, parameters stay gathered over micro-batches.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: LocalParameters,
        loss: Loss,
        optimizer: Optimizer,
        *,
        device: torch.device,
        share: Share,
        rank: int,
        reshard: bool,
        precision: Precision,
        clip_norm: float | None,
        unpack: Unpack,
    ) -> None:
        self._model, self._parameters = model, parameters
        self._loss, self._optimizer = loss, optimizer
        self._device, self._share, self._rank, self._reshard = device, share, rank, reshard
        self._precision, self._clip_norm, self._unpack = precision, clip_norm, unpack

    def __call__(
        self,
        micro_batches: Iterable[Arrays],
        *,
        freeze_flow: bool,
        notices: Mapping[str, bool],
    ) -> StepResult:
        """Run one step over its micro-batches; `notices` has the same keys on all ranks."""
        self._parameters.drop_gradients()
        losses = torch.zeros(1 + len(self._loss.weights), device=self._device)
        for micro, arrays in enumerate(micro_batches):
            if self._share.accumulation > 1:
                last = micro == self._share.accumulation - 1
                synchronize_gradients(self._model, last, reshard=self._reshard)
            if self._share.counts(micro, self._rank):
                losses += self._learn(arrays)
            else:
                self._accompany(arrays)
        gradients = self._parameters.take_gradients()
        if freeze_flow:
            drop_flow_gradients(self._optimizer)
            gradients = [p.grad for p in self._parameters.parts.values() if p.grad is not None]
        return self._finish(losses, gradients, notices)

    def autocast(self) -> torch.autocast:
        """Return the arithmetic of the forward pass."""
        return autocast(self._device, self._precision)

    def _learn(self, arrays: Arrays) -> Tensor:
        """Add the gradients of a run; return its loss and terms, as shares of this rank's mean."""
        taken, wanted = self._unpack(arrays, self._device)
        with self.autocast():
            given = self._model(*taken)
        loss, terms = self._loss(given, wanted)
        # The number of micro-batches, where the ranks divide the runs.
        divisor = self._share.runs / self._share.ranks
        (loss / divisor).backward()  # type: ignore[no-untyped-call]
        return torch.stack([loss, *(terms[name] for name in self._loss.weights)]).detach() / divisor

    def _accompany(self, arrays: Arrays) -> None:
        """Take part in the collectives of a micro-batch, and add gradients of zero."""
        taken, _ = self._unpack(arrays, self._device)
        with self.autocast():
            given = self._model(
                *(torch.zeros_like(x) if isinstance(x, Tensor) else x for x in taken)
            )
        outputs = [given] if isinstance(given, Tensor) else list(given)
        zeros = [torch.zeros_like(output) for output in outputs]
        torch.autograd.backward(outputs, zeros)

    def _finish(
        self, losses: Tensor, gradients: list[Tensor], notices: Mapping[str, bool]
    ) -> StepResult:
        """Agree with all ranks on the outcome, then clip and step, or skip."""
        squares = torch.stack(torch._foreach_norm(gradients)).double().square().sum()
        # Each copy of the weights has the same gradients: one of them counts.
        squares = squares * (self._parameters.replica == 0)
        names = sorted(notices)
        given = torch.tensor([notices[name] for name in names], dtype=squares.dtype)
        given = given.to(self._device, non_blocking=True)
        figures = torch.cat([squares[None], losses.double(), given])
        dist.all_reduce(figures)
        square_sum, *sums = figures.tolist()
        means = [value / self._share.ranks for value in sums[: len(losses)]]
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
