"""A model, batches and a step that train in milliseconds, and the plain loop to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vrtspike.checkpoints.local_part import LocalParameters
from vrtspike.config.choices import Precision
from vrtspike.metrics.losses import LossTerms
from vrtspike.samples.order import StepLayout
from vrtspike.training.optim import build_optimizer
from vrtspike.training.step import Arrays as StepArrays
from vrtspike.training.step import TrainingStep, Unpacked, to_device

Arrays = Mapping[str, NDArray[Any]]
CPU = torch.device("cpu")


class TwoBlocks(nn.Module):
    """Restore frames by two convolutions, one of which has the name of a flow network."""

    def __init__(self) -> None:
        super().__init__()
        self.spynet = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 3, 3, padding=1)
        self.unused = nn.Parameter(torch.ones(3))
        self.dropout = nn.Dropout(0.1)

    def blocks(self) -> list[nn.Module]:
        return [self.spynet, self.head]

    def forward(self, blurred: Tensor, voxels: Tensor | None = None) -> Tensor:
        frames = blurred.flatten(0, 1)
        change = self.head(torch.tanh(self.dropout(self.spynet(frames))))
        if voxels is not None:
            change = change * voxels.flatten(0, 1).mean(1, keepdim=True)
        return blurred + change.view(blurred.shape)


def batch(samples: int, seed: int = 0, side: int = 8) -> dict[str, NDArray[Any]]:
    """Draw frames and voxels."""
    rng = np.random.default_rng(seed)
    frames = {
        name: rng.integers(0, 256, (samples, 2, 3, side, side), np.uint8)
        for name in ("blurred", "sharp")
    }
    counts = rng.integers(0, 4, (samples, 2, 4, side, side))
    return frames | {"voxels": (counts / 2).astype(np.float16)}


def clips(arrays: StepArrays, device: torch.device) -> Unpacked:
    """Return blurred frames and voxels, and sharp frames."""
    blurred, sharp, voxels = to_device(arrays, device)
    return (blurred, voxels), sharp


def make_step(
    model: nn.Module,
    layout: StepLayout | None = None,
    rank: int = 0,
    *,
    reshard: bool = True,
    clip: float | None = None,
    lr: float = 1e-2,
    loss: LossTerms | None = None,
    precision: Precision = "float32",
) -> tuple[TrainingStep, LocalParameters]:
    """Make the step of one rank; without a layout, that of one micro-batch on one rank."""
    model.eval()  # No dropout: results are compared.
    parameters = LocalParameters(model)
    optimizer = build_optimizer(
        parameters.parts,
        kind="adamw",
        lr=lr,
        flow_lr_scale=1.0,
        betas=(0.9, 0.99),
        weight_decay=0.01,
    )
    step = TrainingStep(
        model,
        parameters,
        loss or LossTerms(charbonnier=1.0),
        optimizer,
        device=CPU,
        layout=layout or StepLayout(batch=1, samples=1, ranks=1),
        rank=rank,
        reshard=reshard,
        precision=precision,
        clip_norm=clip,
        unpack=clips,
    )
    return step, parameters


def reference_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimiser of the plain loop."""
    model.eval()
    return torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.99), weight_decay=0.01)


def reference_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, arrays: Arrays
) -> tuple[float, float]:
    """Take one step of a plain loop; return loss and gradient norm."""
    blurred, sharp, voxels = to_device(arrays, CPU)
    optimizer.zero_grad()
    loss = ((model(blurred, voxels) - sharp).square() + 1e-6).sqrt().mean()
    loss.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    optimizer.step()
    return loss.item(), torch.cat(gradients).norm().item()
