"""Checkpoints bring everything back, and a damaged one is found and passed over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from vrtspike.errors import CheckpointError
from vrtspike.losses import LossTerms
from vrtspike.training.checkpoint import checkpoint_steps, newest, prune, verify
from vrtspike.training.ema import AveragedWeights
from vrtspike.training.local import LocalParameters, local
from vrtspike.training.optim import build_optimizer
from vrtspike.training.saving import save
from vrtspike.training.state import TrainingState
from vrtspike.training.step import TrainingStep


class Run:
    """A little training run, dropout included."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.train()
        parameters = LocalParameters(model)
        optimizer = build_optimizer(
            parameters.parts,
            kind="adamw",
            lr=1e-2,
            flow_lr_scale=0.5,
            betas=(0.9, 0.99),
            weight_decay=0.0,
        )
        device = torch.device("cpu")
        self.average = AveragedWeights(parameters, 0.9)
        self.state = TrainingState(
            model, parameters, optimizer, self.average, rank=0, device=device
        )
        self.step = TrainingStep(
            model,
            parameters,
            LossTerms(charbonnier=1.0),
            optimizer,
            device=device,
            accumulation=1,
            precision="float32",
            clip_norm=1.0,
            voxels=None,
        )

    def train(self, first: int, last: int) -> None:
        for number in range(first, last):
            self.step([arrays(number)], freeze_flow=number < 2, stop=False)
            self.average.update()

    def everything(self) -> dict[str, torch.Tensor]:
        return {key: local(value).clone() for key, value in self.state.collect().items()}


def arrays(seed: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {n: rng.integers(0, 256, (1, 2, 3, 8, 8), np.uint8) for n in ("blurred", "sharp")}


@pytest.fixture
def run(sharded: nn.Module) -> Run:
    torch.manual_seed(1)
    return Run(sharded)


@pytest.mark.parametrize("stop", [1, 4])
def test_continued_is_bit_equal_to_uninterrupted(
    run: Run, make_sharded: Callable[[], nn.Module], tmp_path: Path, stop: int
) -> None:
    run.train(0, stop)
    save(tmp_path, stop, run.state.collect(), {"best": None})
    run.train(stop, 7)
    expected = run.everything()
    torch.manual_seed(99)
    other = Run(make_sharded())
    saved, passed_over = newest(tmp_path)
    assert saved is not None and saved.step == stop and not passed_over
    assert other.state.restore(saved)
    other.train(stop, 7)
    found = other.everything()
    assert found.keys() == expected.keys()
    assert {key for key in found if not torch.equal(found[key], expected[key])} == set()
    assert "optimizer/unused/exp_avg" not in found


@pytest.fixture
def make_sharded(sharded: nn.Module) -> Callable[[], nn.Module]:
    """Return a function that makes another model of the same kind with other weights."""
    from vrtspike.training.parallel import parallelize

    def make() -> nn.Module:
        model = type(sharded).__mro__[2]()
        return parallelize(model, torch.device("cpu"), compile_blocks=False, reshard=True)

    return make


@pytest.fixture
def three(run: Run, tmp_path: Path) -> Path:
    """Return a folder with checkpoints of steps 1, 2 and 3."""
    for step in (1, 2, 3):
        run.train(step - 1, step)
        save(tmp_path, step, run.state.collect(), {"best": None})
    return tmp_path


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "bit flip": lambda c: flip_a_bit(c / "__0_0.distcp"),
    "bit flip in metadata": lambda c: flip_a_bit(c / ".metadata"),
    "truncation": lambda c: (c / "__0_0.distcp").write_bytes(b"x"),
    "missing shard": lambda c: (c / "__0_0.distcp").unlink(),
    "missing metadata": lambda c: (c / ".metadata").unlink(),
    "missing manifest": lambda c: (c / "manifest.json").unlink(),
    "torn manifest": lambda c: (c / "manifest.json").write_text('{"version": 1, "st'),
    "empty manifest": lambda c: (c / "manifest.json").write_text("{}"),
    "another version": lambda c: (c / "manifest.json").write_text(
        json.dumps(json.loads((c / "manifest.json").read_text()) | {"version": 7})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_by_name(three: Path, damage: str) -> None:
    DAMAGES[damage](three / "step_00000003")
    saved, passed_over = newest(three)
    assert saved is not None and saved.step == 2
    assert len(passed_over) == 1 and "step_00000003" in passed_over[0]
    prune(three, keep=1, best_step=1)
    assert (three / "step_00000003").is_dir() and (three / "step_00000001").is_dir()


def test_all_damaged_is_refused_and_nothing_is_deleted(three: Path) -> None:
    for step in (1, 2, 3):
        flip_a_bit(three / f"step_{step:08d}" / "__0_0.distcp")
    with pytest.raises(CheckpointError, match="none of 3 checkpoints verifies"):
        newest(three)
    assert checkpoint_steps(three) == [3, 2, 1]
    # Sizes are right, so the quick check alone does not see it.
    assert newest(three, content=False)[0] is not None


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert newest(tmp_path / "none") == (None, [])
    shutil.copytree(tmp_path, tmp_path / "c" / ".step_00000001.part", dirs_exist_ok=True)
    assert newest(tmp_path / "c") == (None, [])


def test_the_newest_and_the_best_are_kept(three: Path, run: Run) -> None:
    prune(three, keep=1, best_step=1)
    assert checkpoint_steps(three) == [3, 1]
    save(three, 4, run.state.collect(), {"best": (30.0, 4)})
    prune(three, keep=1, best_step=4)
    assert checkpoint_steps(three) == [4]
    assert not [path for path in three.iterdir() if path.name.startswith(".")]


def test_a_damaged_one_of_the_same_step_is_set_aside(three: Path, run: Run) -> None:
    flip_a_bit(three / "step_00000003" / "__0_0.distcp")
    save(three, 3, run.state.collect(), {"best": None})
    assert verify(three / "step_00000003").step == 3
    assert (three / "step_00000003.damaged").is_dir()


def test_a_checkpoint_of_another_model_is_an_error(
    three: Path, alone: None, make_other: Callable[[], nn.Module]
) -> None:
    saved, _ = newest(three)
    assert saved is not None
    with pytest.raises(CheckpointError, match="does not fit the model"):
        Run(make_other()).state.restore(saved)


@pytest.fixture
def make_other() -> Callable[[], nn.Module]:
    """Return a function that makes a model of other shapes."""
    from vrtspike.training.parallel import parallelize

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spynet = nn.Conv2d(3, 5, 3, padding=1)
            self.extra = nn.Linear(2, 2)

        def blocks(self) -> list[nn.Module]:
            return [self.spynet]

    return lambda: parallelize(Wide(), torch.device("cpu"), compile_blocks=False, reshard=True)
