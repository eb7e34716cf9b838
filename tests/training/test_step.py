"""A step is that of a plain loop, however it is divided; a bad one changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.training.two_blocks import (
    CPU,
    batch,
    make_step,
    reference_optimizer,
    reference_step,
)
from vrtspike.checkpoints.local_part import local
from vrtspike.metrics.losses import LossTerms
from vrtspike.samples.order import StepLayout
from vrtspike.training.ema import AveragedWeights
from vrtspike.training.parallel import full_weights, reshard_all
from vrtspike.training.step import to_device


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: local(p.detach()).clone() for name, p in model.named_parameters()}


def test_steps_are_those_of_a_plain_loop(plain: nn.Module, sharded: nn.Module) -> None:
    step, _ = make_step(sharded)
    optimizer = reference_optimizer(plain)
    for number in range(4):
        result = step([batch(2, number)], freeze_flow=False, notices={})
        expected = reference_step(plain, optimizer, batch(2, number))
        assert (result.loss, result.grad_norm) == pytest.approx(expected)
        assert result.stepped and not result.notices
    for name, value in weights(sharded).items():
        torch.testing.assert_close(value, plain.get_parameter(name).detach())


def test_micro_batches_add_up_to_the_batch(plain: nn.Module, sharded: nn.Module) -> None:
    whole = batch(4)
    halves = [{k: v[:2] for k, v in whole.items()}, {k: v[2:] for k, v in whole.items()}]
    divided, _ = make_step(sharded, StepLayout(batch=4, samples=2, ranks=1))
    together, _ = make_step(plain)
    a = divided(halves, freeze_flow=False, notices={})
    b = together([whole], freeze_flow=False, notices={})
    assert (a.loss, a.grad_norm) == (pytest.approx(b.loss), pytest.approx(b.grad_norm))
    for name, value in weights(sharded).items():
        torch.testing.assert_close(value, plain.get_parameter(name).detach())


def test_gradients_are_clipped_to_the_norm(sharded: nn.Module) -> None:
    free, parameters = make_step(sharded, lr=1e-9)
    norm = free([batch(2)], freeze_flow=False, notices={}).grad_norm
    found = torch.stack([p.grad.norm() for p in parameters.parts.values() if p.grad is not None])
    assert found.norm().item() == pytest.approx(norm)
    clipped, parameters = make_step(sharded, clip=norm / 2, lr=1e-9)
    assert clipped([batch(2)], freeze_flow=False, notices={}).grad_norm == pytest.approx(norm)
    found = torch.stack([p.grad.norm() for p in parameters.parts.values() if p.grad is not None])
    assert found.norm().item() == pytest.approx(norm / 2, rel=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing(sharded: nn.Module, bad: float) -> None:
    step, _ = make_step(sharded)
    step([batch(2)], freeze_flow=False, notices={})
    before = weights(sharded)
    handle = sharded.register_forward_hook(lambda module, inputs, output: output * bad)
    result = step([batch(2, 1)], freeze_flow=False, notices={})
    handle.remove()
    assert not result.stepped
    assert all(torch.equal(value, before[name]) for name, value in weights(sharded).items())
    assert step([batch(2, 1)], freeze_flow=False, notices={}).stepped
    assert not all(torch.equal(value, before[name]) for name, value in weights(sharded).items())


def test_frozen_flow_layers_stay(sharded: nn.Module) -> None:
    step, _ = make_step(sharded)
    before = weights(sharded)
    step([batch(2)], freeze_flow=True, notices={})
    changed = {name for name, v in weights(sharded).items() if not torch.equal(v, before[name])}
    assert changed == {"head.weight", "head.bias"}
    step([batch(2)], freeze_flow=False, notices={})
    assert not torch.equal(weights(sharded)["spynet.weight"], before["spynet.weight"])


def test_terms_are_told_before_their_weights(sharded: nn.Module) -> None:
    loss = LossTerms(charbonnier=0.5, l1=0.1)
    step, _ = make_step(sharded, StepLayout(batch=4, samples=2, ranks=1), loss=loss)
    halves = [batch(2, 0), batch(2, 1)]
    terms = []
    for half in halves:
        blurred, sharp, voxels = to_device(half, CPU)
        terms.append(loss(sharded(blurred, voxels), sharp)[1])
    reshard_all(sharded)
    result = step(halves, freeze_flow=False, notices={"stop": True, "preempted": False})
    for name in ("charbonnier", "l1"):
        mean = (terms[0][name] + terms[1][name]) / 2
        assert result.terms[name] == pytest.approx(mean.item())
    whole = 0.5 * result.terms["charbonnier"] + 0.1 * result.terms["l1"]
    assert result.loss == pytest.approx(whole)
    assert result.notices == {"stop"}


def test_the_average_follows_and_gives_way(sharded: nn.Module) -> None:
    step, parameters = make_step(sharded)
    average = AveragedWeights(parameters, 0.75)
    expected = {name: value.clone() for name, value in weights(sharded).items()}
    for number in range(3):
        step([batch(2, number)], freeze_flow=False, notices={})
        average.update()
        for name, value in weights(sharded).items():
            expected[name] = 0.75 * expected[name] + 0.25 * value
    own = weights(sharded)
    blurred, _, voxels = to_device(batch(1), CPU)
    with torch.no_grad():
        before = sharded(blurred, voxels)
        reshard_all(sharded)
        with average.in_place_of_weights():
            averaged = full_weights(sharded)
            other = sharded(blurred, voxels)
            reshard_all(sharded)
        after = sharded(blurred, voxels)
        reshard_all(sharded)
    for name in expected:
        torch.testing.assert_close(averaged[name], expected[name])
        assert torch.equal(weights(sharded)[name], own[name])
    assert torch.equal(before, after) and not torch.equal(before, other)
