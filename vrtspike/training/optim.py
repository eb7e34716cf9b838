"""Optimiser, parameter groups and learning rates.

There are two parameter groups. The flow network and the deformable alignment learn at a fraction of
the learning rate, and are frozen in the first steps; all other parameters learn at the rate of the
schedule. The rate is a function of the step alone, so a continued run needs no scheduler state.

    warm-up           lr * (step + 1) / warmup_steps
    cosine            min_lr + (lr - min_lr) * (1 + cos(pi * x)) / 2,  x = fraction of the period
                      that is done; one period from the warm-up to the last step
    cosine_restarts   the same, with a new period at each milestone (SGDR: Loshchilov and Hutter
                      2017)
    multistep         lr * 0.5 ** (milestones passed)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer

FLOW_PARTS = ("spynet", "pa_deform")
"""A parameter whose name contains one of these is in the flow group."""

Schedule = Literal["cosine", "cosine_restarts", "multistep", "constant"]


def is_flow(name: str) -> bool:
    """Return whether a parameter belongs to the flow network or the deformable alignment."""
    return any(part in name for part in FLOW_PARTS)


def learning_rate(
    step: int,
    *,
    steps: int,
    lr: float,
    schedule: Schedule,
    warmup_steps: int = 0,
    min_lr: float = 0.0,
    milestones: Sequence[float] = (),
) -> float:
    """Return the learning rate of optimiser step `step`, counted from 0.

    `milestones` are increasing fractions of `steps`.
    """
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    marks = [round(milestone * steps) for milestone in milestones]
    match schedule:
        case "constant":
            return lr
        case "multistep":
            return lr * 0.5 ** sum(step >= mark for mark in marks)
        case "cosine":
            start, end = warmup_steps, steps
        case "cosine_restarts":
            start = max([warmup_steps, *(mark for mark in marks if mark <= step)])
            end = min([steps, *(mark for mark in marks if mark > step)])
    done = (step - start) / max(1, end - start)
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def build_optimizer(
    parameters: Mapping[str, nn.Parameter],
    *,
    kind: Literal["adamw", "adam"],
    lr: float,
    flow_lr_scale: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> Optimizer:
    """Build the optimiser over the two parameter groups.

    Each group also stores `scale`, its factor of the learning rate, and `flow`, whether it is the
    flow group.
    """
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for name, parameter in parameters.items():
        groups[is_flow(name)].append(parameter)
    build = torch.optim.AdamW if kind == "adamw" else torch.optim.Adam
    return build(
        [
            {"params": members, "flow": flow, "scale": flow_lr_scale if flow else 1.0}
            for flow, members in groups.items()
            if members
        ],
        lr=lr,
        betas=betas,
        weight_decay=weight_decay,
        fused=True,
    )


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of each group to `lr` times the group's scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


def learning_rates(optimizer: Optimizer) -> dict[str, float]:
    """Return the current learning rate of each group, by the names `main` and `flow`."""
    return {"flow" if group["flow"] else "main": group["lr"] for group in optimizer.param_groups}


def step_clipped(optimizer: Optimizer, norm: float, most: float | None) -> None:
    """Take a step; if the gradients' `norm` is above `most`, scale them down to it.

    The fused optimiser scales the gradients in the same pass as the step, and leaves them scaled.
    """
    if most is None or norm <= most:
        optimizer.step()
        return
    device = optimizer.param_groups[0]["params"][0].device
    # torch's GradScaler sets the same attribute.
    optimizer.grad_scale = torch.tensor((norm + 1e-6) / most, device=device)  # type: ignore[attr-defined]
    optimizer.step()
    del optimizer.grad_scale  # type: ignore[attr-defined]


def drop_flow_gradients(optimizer: Optimizer) -> None:
    """Delete the gradients of the flow group, so that a step changes neither it nor its moments."""
    for group in optimizer.param_groups:
        if group["flow"]:
            for parameter in group["params"]:
                parameter.grad = None
