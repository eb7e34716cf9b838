"""Checkpoints bring everything back, and a damaged one is found and passed over: on disk and in a
store (a real S3 API, served on this machine)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from tests.training.conftest import MakeSharded
from tests.training.two_blocks import TwoBlocks, clips
from vrtspike.checkpoints import manifest as checkpoint
from vrtspike.checkpoints.local_part import LocalParameters, local
from vrtspike.checkpoints.manifest import (
    checkpoint_folder,
    checkpoint_steps,
    inspect,
    newest,
    prune,
    verify,
)
from vrtspike.checkpoints.read_write import CheckpointWriter
from vrtspike.checkpoints.snapshot import SnapshotBuffer
from vrtspike.errors import CheckpointError, StorageError
from vrtspike.metrics.losses import LossTerms
from vrtspike.samples.order import StepLayout
from vrtspike.storage.folder import Folder
from vrtspike.training.ema import AveragedWeights
from vrtspike.training.optim import build_optimizer
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
            layout=StepLayout(batch=1, samples=1, ranks=1),
            rank=0,
            reshard=True,
            precision="float32",
            clip_norm=1.0,
            unpack=clips,
        )

    def train(self, first: int, last: int) -> None:
        for number in range(first, last):
            self.step([arrays(number)], freeze_flow=number < 2, notices={})
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


@pytest.fixture(params=["disk", "store"])
def checkpoints(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """Return an empty folder, on this machine and in an object store."""
    if request.param == "disk":
        return Folder.at(tmp_path / "checkpoints")
    return Folder.at(request.getfixturevalue("bucket").format(f"{tmp_path.name}/checkpoints"))


def save(checkpoints: Folder, step: int, state: dict[str, Any]) -> Folder:
    writer = CheckpointWriter(checkpoints, dist.group.WORLD)
    return writer.write(step, SnapshotBuffer().copy(state), {"best": None})


@pytest.mark.parametrize("stop", [1, 4])
def test_continued_is_bit_equal_to_uninterrupted(
    run: Run,
    make_sharded: MakeSharded,
    checkpoints: Folder,
    stop: int,
) -> None:
    run.train(0, stop)
    save(checkpoints, stop, run.state.collect())
    run.train(stop, 7)
    expected = run.everything()
    torch.manual_seed(99)
    other = Run(make_sharded(TwoBlocks))
    saved, passed_over = newest(checkpoints)
    assert saved is not None and saved.step == stop and not passed_over
    assert other.state.restore(saved)
    other.train(stop, 7)
    found = other.everything()
    assert found.keys() == expected.keys()
    assert {key for key in found if not torch.equal(found[key], expected[key])} == set()
    assert "optimizer/unused/exp_avg" not in found


@pytest.fixture
def three(run: Run, checkpoints: Folder) -> Folder:
    """Return a folder with checkpoints of steps 1, 2 and 3."""
    for step in (1, 2, 3):
        run.train(step - 1, step)
        save(checkpoints, step, run.state.collect())
    return checkpoints


SHARD = "rank_00000.safetensors"


def flip_a_bit(checkpoint: Folder, file: str = SHARD) -> None:
    content = bytearray(checkpoint.read(file))
    content[len(content) // 2] ^= 1
    checkpoint.write(file, bytes(content))


def changed_manifest(checkpoint: Folder, **changes: Any) -> None:
    manifest = json.loads(checkpoint.read("manifest.json")) | changes
    checkpoint.write("manifest.json", json.dumps(manifest).encode())


DAMAGES: dict[str, Callable[[Folder], Any]] = {
    "bit flip": flip_a_bit,
    "truncation": lambda c: c.write(SHARD, b"x"),
    "missing shard": lambda c: c.remove(SHARD),
    "missing manifest": lambda c: c.remove("manifest.json"),
    "torn manifest": lambda c: c.write("manifest.json", b'{"version": 1, "st'),
    "empty manifest": lambda c: c.write("manifest.json", b"{}"),
    "no bytes in manifest": lambda c: c.write("manifest.json", b""),
    "manifest is a list": lambda c: c.write("manifest.json", b"[]"),
    "files are a list": lambda c: changed_manifest(c, files=[]),
    "another version": lambda c: changed_manifest(c, version=7),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_by_name(three: Folder, damage: str) -> None:
    DAMAGES[damage](checkpoint_folder(three, 3))
    saved, passed_over = newest(three)
    assert saved is not None and saved.step == 2
    assert len(passed_over) == 1 and "step_00000003" in passed_over[0]
    states = [(one.step, one.state) for one in inspect(three)]
    assert states == [
        (3, "partial" if damage == "missing manifest" else "damaged"),
        (2, "whole"),
        (1, "whole"),
    ]
    # What the run went on from is kept, whatever later steps look like.
    prune(three, step=2, keep=1, best=[])
    assert checkpoint_steps(three) == [3, 2]


@pytest.mark.parametrize("damage", DAMAGES)
def test_pruning_leaves_what_is_damaged(three: Folder, damage: str) -> None:
    DAMAGES[damage](checkpoint_folder(three, 2))
    prune(three, step=3, keep=1, best=[])
    gone = damage in ("bit flip", "missing manifest")  # not seen by its size; never finished
    assert checkpoint_steps(three) == ([3] if gone else [3, 2])


def test_a_run_that_died_in_its_first_save_starts_anew(three: Folder) -> None:
    for step in (1, 2, 3):
        checkpoint_folder(three, step).remove("manifest.json")
    saved, passed_over = newest(three)
    assert saved is None and len(passed_over) == 3


def test_storage_that_fails_for_a_moment_costs_no_checkpoint(
    three: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, failures = Folder.sha256, [StorageError("away"), StorageError("away")]

    def failing(folder: Folder, file: str) -> str:
        if failures:
            raise failures.pop()
        return plain(folder, file)

    monkeypatch.setattr(checkpoint, "PAUSES_S", (0, 0))
    monkeypatch.setattr(Folder, "sha256", failing)
    saved, passed_over = newest(three)
    assert saved is not None and saved.step == 3 and not passed_over
    failures += [StorageError("away")] * 3
    saved, passed_over = newest(three)
    assert saved is not None and saved.step == 2 and "away" in passed_over[0]


def test_all_damaged_is_refused_and_nothing_is_deleted(three: Folder) -> None:
    for step in (1, 2, 3):
        flip_a_bit(checkpoint_folder(three, step))
    with pytest.raises(CheckpointError, match="none of 3 checkpoints verifies"):
        newest(three)
    assert checkpoint_steps(three) == [3, 2, 1]
    # Sizes are right, so the quick check alone does not see it.
    assert newest(three, content=False)[0] is not None


def test_no_checkpoint_is_no_error(checkpoints: Folder) -> None:
    assert newest(checkpoints) == (None, []) and inspect(checkpoints) == []
    checkpoints.write("another/file", b"")
    assert newest(checkpoints) == (None, [])


def test_the_newest_and_the_best_are_kept(three: Folder, run: Run) -> None:
    prune(three, step=3, keep=1, best=[1])
    assert checkpoint_steps(three) == [3, 1]
    save(three, 4, run.state.collect())
    prune(three, step=4, keep=1, best=[4])
    assert checkpoint_steps(three) == [4]
    assert {file.split("/")[0] for file in three.listing()} == {"step_00000004"}


def test_the_manifest_is_the_first_to_go(
    three: Folder, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: Folder) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Folder, "clear", stop)
    with pytest.raises(KeyboardInterrupt):
        prune(three, step=3, keep=2, best=[])
    with pytest.raises(KeyboardInterrupt):
        save(three, 2, run.state.collect())
    assert [(one.step, one.state) for one in inspect(three)] == [
        (3, "whole"),
        (2, "partial"),
        (1, "partial"),
    ]


@pytest.mark.parametrize("damage", ["bit flip", "missing shard", "missing manifest"])
def test_saving_the_same_step_clears_what_remains(three: Folder, run: Run, damage: str) -> None:
    folder = checkpoint_folder(three, 3)
    DAMAGES[damage](folder)
    folder.write("rank_00007.safetensors", b"of a larger run")
    save(three, 3, run.state.collect())
    assert verify(folder).step == 3
    assert list(folder.listing()) == ["manifest.json", SHARD]


def test_a_checkpoint_of_another_model_is_an_error(
    three: Folder, make_sharded: MakeSharded
) -> None:
    saved, _ = newest(three)
    assert saved is not None
    with pytest.raises(CheckpointError, match="does not fit the model"):
        Run(make_sharded(Wide)).state.restore(saved)


class Wide(nn.Module):
    """A model of other shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.spynet = nn.Conv2d(3, 5, 3, padding=1)
        self.extra = nn.Linear(2, 2)

    def blocks(self) -> list[nn.Module]:
        return [self.spynet]
