"""Learning rates and groups."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from vrtspike.training.optim import (
    build_optimizer,
    drop_flow_gradients,
    is_flow,
    learning_rate,
    learning_rates,
    set_learning_rate,
)


def rate(step: int, **changes: object) -> float:
    settings = {
        "steps": 100,
        "lr": 1.0,
        "schedule": "cosine",
        "warmup_steps": 10,
        "min_lr": 0.1,
        "milestones": (0.5, 0.75),
    }
    return learning_rate(step, **(settings | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", ["cosine", "cosine_restarts", "multistep", "constant"])
def test_warm_up_is_linear_and_ends_at_the_peak(schedule: str) -> None:
    rates = [rate(step, schedule=schedule) for step in range(11)]
    assert rates == pytest.approx([0.1 * (step + 1) for step in range(10)] + [1.0])


def test_cosine_falls_from_the_peak_to_the_least() -> None:
    rates = [rate(step) for step in range(10, 100)]
    assert rates == sorted(rates, reverse=True)
    assert rate(55) == pytest.approx(0.55)
    assert rate(100) == pytest.approx(0.1)
    assert rate(10**6) == pytest.approx(0.1)


def test_multistep_halves_at_its_milestones() -> None:
    found = [rate(step, schedule="multistep") for step in (49, 50, 74, 75, 99)]
    assert found == [1.0, 0.5, 0.5, 0.25, 0.25]
    assert rate(99, schedule="constant") == 1.0


def test_restarts_are_those_of_torch() -> None:
    parameter = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 5, 2, eta_min=0.1)
    settings = {"steps": 35, "schedule": "cosine_restarts", "milestones": (5 / 35, 15 / 35)}
    for step in range(35):
        assert rate(step, warmup_steps=0, **settings) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


def test_restarts_follow_the_warm_up() -> None:
    found = [rate(step, schedule="cosine_restarts", milestones=(0.05, 0.4)) for step in range(101)]
    assert [step for step in range(101) if found[step] == 1.0] == [9, 10, 40]
    assert found[25] == pytest.approx(0.55) and found[100] == pytest.approx(0.1)
    assert found[:10] == [rate(step) for step in range(10)]


def test_flow_parameters_form_a_group_of_their_own(plain: nn.Module) -> None:
    assert is_flow("vrt.stage1.pa_deform.weight") and not is_flow("vrt.stage1.linear.weight")
    optimizer = build_optimizer(
        dict(plain.named_parameters()),
        kind="adamw",
        lr=1.0,
        flow_lr_scale=0.125,
        betas=(0.9, 0.99),
        weight_decay=0.0,
    )
    set_learning_rate(optimizer, 0.8)
    assert learning_rates(optimizer) == pytest.approx({"main": 0.8, "flow": 0.1})
    assert [len(group["params"]) for group in optimizer.param_groups] == [3, 2]
    plain(torch.rand(1, 1, 3, 8, 8)).sum().backward()
    drop_flow_gradients(optimizer)
    assert [parameter.grad is None for parameter in plain.spynet.parameters()] == [True, True]
    assert plain.head.weight.grad is not None
    before = plain.spynet.weight.clone()
    optimizer.step()
    assert torch.equal(plain.spynet.weight, before)
    assert math.isfinite(plain.head.weight.sum().item())
