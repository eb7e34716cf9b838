"""A step is that of a plain loop, however it is divided; a bad one changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vrtspike.losses import LossTerms
from vrtspike.training.ema import AveragedWeights
from vrtspike.training.local import LocalParameters, local
from vrtspike.training.optim import build_optimizer
from vrtspike.training.parallel import full_weights, reshard_all
from vrtspike.training.step import TrainingStep, VoxelScale, to_device

Arrays = Mapping[str, NDArray[Any]]


def batch(samples: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    frames = {
        name: rng.integers(0, 256, (samples, 2, 3, 8, 8), np.uint8) for name in ("blurred", "sharp")
    }
    counts = rng.integers(0, 4, (samples, 2, 4, 8, 8), np.uint8)
    return frames | {"counts": counts, "steps": np.full((samples, 4), 4, np.int32)}


def make_step(
    model: nn.Module, *, accumulation: int = 1, clip: float | None = None, lr: float = 1e-2
) -> tuple[TrainingStep, LocalParameters]:
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
        LossTerms(charbonnier=1.0),
        optimizer,
        device=torch.device("cpu"),
        accumulation=accumulation,
        precision="float32",
        clip_norm=clip,
        voxels=VoxelScale(2.0, "rate"),
    )
    return step, parameters


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: local(p.detach()).clone() for name, p in model.named_parameters()}


def reference_step(model: nn.Module, optimizer: torch.optim.Optimizer, arrays: Arrays) -> float:
    """Take one step of a plain loop."""
    blurred, sharp, voxels = to_device(arrays, torch.device("cpu"), VoxelScale(2.0, "rate"))
    optimizer.zero_grad()
    loss = ((model(blurred, voxels) - sharp).square() + 1e-6).sqrt().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def test_steps_are_those_of_a_plain_loop(plain: nn.Module, sharded: nn.Module) -> None:
    step, _ = make_step(sharded)
    plain.eval()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2, betas=(0.9, 0.99), weight_decay=0.01)
    for number in range(4):
        result = step([batch(2, number)], freeze_flow=False, stop=False)
        assert result.loss == pytest.approx(reference_step(plain, optimizer, batch(2, number)))
        assert result.stepped and not result.stop
    for name, value in weights(sharded).items():
        torch.testing.assert_close(value, plain.get_parameter(name).detach())


def test_micro_batches_add_up_to_the_batch(plain: nn.Module, sharded: nn.Module) -> None:
    whole = batch(4)
    halves = [{k: v[:2] for k, v in whole.items()}, {k: v[2:] for k, v in whole.items()}]
    divided, _ = make_step(sharded, accumulation=2)
    together, _ = make_step(plain)
    a = divided(halves, freeze_flow=False, stop=False)
    b = together([whole], freeze_flow=False, stop=False)
    assert (a.loss, a.grad_norm) == (pytest.approx(b.loss), pytest.approx(b.grad_norm))
    for name, value in weights(sharded).items():
        torch.testing.assert_close(value, plain.get_parameter(name).detach())


def test_gradients_are_clipped_to_the_norm(sharded: nn.Module) -> None:
    free, parameters = make_step(sharded, lr=1e-9)
    norm = free([batch(2)], freeze_flow=False, stop=False).grad_norm
    found = torch.stack([p.grad.norm() for p in parameters.parts.values() if p.grad is not None])
    assert found.norm().item() == pytest.approx(norm)
    clipped, parameters = make_step(sharded, clip=norm / 2, lr=1e-9)
    assert clipped([batch(2)], freeze_flow=False, stop=False).grad_norm == pytest.approx(norm)
    found = torch.stack([p.grad.norm() for p in parameters.parts.values() if p.grad is not None])
    assert found.norm().item() == pytest.approx(norm / 2, rel=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing(sharded: nn.Module, bad: float) -> None:
    step, _ = make_step(sharded)
    step([batch(2)], freeze_flow=False, stop=False)
    before = weights(sharded)
    handle = sharded.register_forward_hook(lambda module, inputs, output: output * bad)
    result = step([batch(2, 1)], freeze_flow=False, stop=False)
    handle.remove()
    assert not result.stepped
    assert all(torch.equal(value, before[name]) for name, value in weights(sharded).items())
    assert step([batch(2, 1)], freeze_flow=False, stop=False).stepped
    assert not all(torch.equal(value, before[name]) for name, value in weights(sharded).items())


def test_frozen_flow_layers_stay(sharded: nn.Module) -> None:
    step, _ = make_step(sharded)
    before = weights(sharded)
    step([batch(2)], freeze_flow=True, stop=False)
    changed = {name for name, v in weights(sharded).items() if not torch.equal(v, before[name])}
    assert changed == {"head.weight", "head.bias"}
    step([batch(2)], freeze_flow=False, stop=False)
    assert not torch.equal(weights(sharded)["spynet.weight"], before["spynet.weight"])


def test_a_stop_is_told_to_all(sharded: nn.Module) -> None:
    step, _ = make_step(sharded)
    assert step([batch(2)], freeze_flow=False, stop=True).stop


def test_the_average_follows_and_gives_way(sharded: nn.Module) -> None:
    step, parameters = make_step(sharded)
    average = AveragedWeights(parameters, 0.75)
    expected = {name: value.clone() for name, value in weights(sharded).items()}
    for number in range(3):
        step([batch(2, number)], freeze_flow=False, stop=False)
        average.update()
        for name, value in weights(sharded).items():
            expected[name] = 0.75 * expected[name] + 0.25 * value
    own = weights(sharded)
    blurred, _, voxels = to_device(batch(1), torch.device("cpu"), VoxelScale(2.0, "rate"))
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
