"""Training on Ray: the loss of one process, exact continuation, and errors before it starts."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vrtspike.checkpoints.manifest import checkpoint_folder, checkpoint_steps, verify
from vrtspike.config.config import Config
from vrtspike.config.loader import load_config
from vrtspike.errors import ConfigError, ResourceError
from vrtspike.metrics.losses import LossTerms
from vrtspike.model import build_model
from vrtspike.runs.export import exported_step, weights_of_checkpoint, write_export
from vrtspike.runs.metrics_log import read_metrics
from vrtspike.runs.paths import EXPORT
from vrtspike.samples.order import StepLayout, micro_batch
from vrtspike.samples.sample import SampleReader
from vrtspike.samples.shards import read_manifest
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.storage.folder import Folder
from vrtspike.training.driver import ensure_data, run_training
from vrtspike.training.optim import build_optimizer, learning_rate, set_learning_rate
from vrtspike.training.preflight import check_data
from vrtspike.training.step import to_device

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.ray, pytest.mark.timeout(300)]
STEPS = 12


@pytest.fixture(scope="module")
def make_config(
    tmp_path_factory: pytest.TempPathFactory,
    moving_photograph: Callable[..., Path],
    repository: Path,
) -> Callable[..., Config]:
    """Return a function that makes a configuration of a small run."""
    folder = tmp_path_factory.mktemp("training")
    moving_photograph(folder / "source", {"a": 4, "b": 3}, split="train")
    moving_photograph(folder / "source", {"c": 3}, split="val")

    def make(name: str, **changes: Any) -> Config:
        overrides = {
            "run.name": name,
            "run.root": folder / "runs",
            "data.source": folder / "source",
            "data.shards": folder / "shards",
            "data.frames": 2,
            "data.crop": 32,
            "scenes": "null",
            "model.drop_path": 0.2,
            "model.blocks": 1,
            "train.steps": STEPS,
            "train.batch": 2,
            "train.checkpoint_every": 2,
            "train.validate_every": 4,
            "train.log_every": 1,
            "train.keep_checkpoints": 9,
            "train.warmup_steps": 2,
            "train.freeze_flow_steps": 1,
        } | {key.replace("__", "."): value for key, value in changes.items()}
        pairs = [f"{key}={value}" for key, value in overrides.items()]
        return load_config(repository / "configs" / "debug.yaml", pairs)

    return make


@pytest.fixture(scope="module")
def whole(make_config: Callable[..., Config]) -> Path:
    """Return the folder of a run that nothing interrupted."""
    return run_training(make_config("whole")).path


def losses(run: Path, steps: int = STEPS) -> list[float]:
    records = [r for r in read_metrics(Folder.at(run)) if r["kind"] == "train"]
    assert [record["step"] for record in records] == list(range(1, steps + 1))
    return [record["loss"] for record in records]


def shards_of(run: Path, steps: int) -> dict[str, bytes]:
    """Return the tensors of the last checkpoint, as the ranks wrote them."""
    folder = run / "checkpoints" / f"step_{steps:08d}"
    return {path.name: path.read_bytes() for path in folder.glob("rank_*")}


def assert_equal_runs(run: Path, whole: Path, steps: int = STEPS) -> None:
    assert losses(run, steps) == losses(whole, steps)
    assert shards_of(run, steps) == shards_of(whole, steps) != {}
    weights, expected = (load_file(r / "export" / "model.safetensors") for r in (run, whole))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def after_step(run: Path, step: int, act: Callable[[], None]) -> threading.Thread:
    """Do something once a run has noted a step."""

    def wait() -> None:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            if any(
                r["kind"] == "train" and r["step"] >= step for r in read_metrics(Folder.at(run))
            ):
                act()
                return
            time.sleep(0.02)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_run_leaves_what_it_should(whole: Path, make_config: Callable[..., Config]) -> None:
    assert checkpoint_steps(Folder.at(whole / "checkpoints")) == [12, 10, 8, 6, 4, 2]
    assert load_config(whole / "config.yaml").run.name == "whole"
    values = [r for r in read_metrics(Folder.at(whole)) if r["kind"] == "val"]
    assert [value["step"] for value in values] == [4, 8, 12]
    assert {path.name for path in whole.iterdir()} == {
        *("config.yaml", "metrics.jsonl", "tensorboard", "checkpoints", "export", ".lock")
    }
    started = time.monotonic()
    assert run_training(make_config("whole")).path == whole
    assert time.monotonic() - started < 5


def test_weights_of_another_step_do_not_pass_for_the_last(
    whole: Path, make_config: Callable[..., Config]
) -> None:
    export = whole / "export" / "model.safetensors"
    expected = load_file(export)
    saved = verify(checkpoint_folder(Folder.at(whole / "checkpoints"), 2))
    write_export(Folder.at(whole), EXPORT, *weights_of_checkpoint(saved))
    assert exported_step(Folder.at(whole), EXPORT) == 2
    run_training(make_config("whole"))
    assert exported_step(Folder.at(whole), EXPORT) == STEPS
    assert all(torch.equal(weight, expected[name]) for name, weight in load_file(export).items())


def test_two_workers_train_as_one_process_would(
    make_config: Callable[..., Config], whole: Path
) -> None:
    # Dropped paths differ by rank, so this run has none.
    config = make_config("no_drop", model__drop_path=0.0, train__validate_every=0)
    run = run_training(config).path
    assert losses(run) == pytest.approx(reference_losses(config), rel=1e-4)


def reference_losses(config: Config) -> list[float]:
    """Train the same global batches in a plain loop."""
    train = config.train
    manifest = read_manifest(config.data.shards)
    reader = SampleReader(
        shards=str(config.data.shards),
        split="train",
        fingerprint=manifest.fingerprint,
        crop=config.data.crop,
        augment=True,
        spikes=SpikeRepresentation.of(config.model),
        seed=config.run.seed,
    )
    torch.manual_seed(config.run.seed)
    model = build_model(config.model)
    optimizer = build_optimizer(
        dict(model.named_parameters()),
        kind=train.optimizer,
        lr=train.lr,
        flow_lr_scale=train.flow_lr_scale,
        betas=train.betas,
        weight_decay=train.weight_decay,
    )
    terms = LossTerms(**(config.loss.model_dump() | {"guess": 0.0}))
    samples = len(manifest.splits["train"].samples)
    found = []
    for step in range(train.steps):
        draws = micro_batch(
            config.run.seed, samples, StepLayout(train.batch, train.batch, 1), step, 0
        )
        blurred, sharp, voxels = to_device(reader.training(draws), torch.device("cpu"))
        optimizer.zero_grad()
        loss, _ = terms(model(blurred, voxels), sharp)
        loss.backward()
        if step < train.freeze_flow_steps:
            for parameter in optimizer.param_groups[1]["params"]:
                parameter.grad = None
        assert train.clip_norm is not None
        torch.nn.utils.clip_grad_norm_(
            [p for p in model.parameters() if p.grad is not None], train.clip_norm
        )
        rate = learning_rate(
            step,
            steps=train.steps,
            lr=train.lr,
            schedule=train.schedule,
            warmup_steps=train.warmup_steps,
            min_lr=train.min_lr,
        )
        set_learning_rate(optimizer, rate)
        optimizer.step()
        found.append(loss.item())
    return found


def test_stopped_and_continued_is_bit_equal(
    make_config: Callable[..., Config], whole: Path
) -> None:
    config = make_config("stopped")
    folder = config.run.root / "stopped"
    thread = after_step(folder, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stop:
        run_training(config)
    thread.join()
    assert stop.value.code == 128 + signal.SIGTERM
    assert 3 <= checkpoint_steps(Folder.at(folder / "checkpoints"))[0] < STEPS
    assert not (folder / "export").exists()
    assert_equal_runs(run_training(config).path, whole)


def test_a_killed_worker_costs_no_step_and_changes_nothing(
    make_config: Callable[..., Config], whole: Path
) -> None:
    config = make_config("killed")

    def kill() -> None:
        os.kill(training_processes()[0], signal.SIGKILL)

    thread = after_step(config.run.root / "killed", 3, kill)
    run = run_training(config).path
    thread.join()
    starts = [
        record["step"] for record in read_metrics(Folder.at(run)) if record["kind"] == "start"
    ]
    assert starts[0] == 0 and starts[1] in (0, 2, 4, 6, 8, 10)
    assert_equal_runs(run, whole)


def test_a_run_of_minutes_takes_them_and_continues_bit_equal(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    changes = {
        "train__minutes": 0.1,
        "train__clock": "cpu",
        "train__validate_every": 0.5,
        # Only the checkpoints of the decision, the validations and the end.
        "train__checkpoint_every": 1000,
    }
    run = run_training(make_config("minutes", **changes)).path
    records = read_metrics(Folder.at(run))
    (measured,) = [r for r in records if r["kind"] == "measured"]
    steps, decided = measured["steps"], measured["step"]
    assert steps == int(6.0 / measured["step_cpu_s"]) > decided > 1
    assert [r["share"] for r in records if r["kind"] == "val"] == [0.5, 1.0]
    assert [r["steps"] for r in records if r["kind"] == "start"] == [None]
    rows = [r for r in records if r["kind"] == "train"]
    assert rows[-1]["step"] == steps
    # The first steps take longer, and this machine is never quiet.
    assert 3.0 < rows[-1]["spent_cpu_s"] < 18.0
    rates = [r["lr"] for r in rows]
    train = make_config("minutes").train
    fixed = {"lr": train.lr, "schedule": train.schedule, "warmup_steps": train.warmup_steps}
    for step, rate in enumerate(rates):
        length = steps if step >= decided else 10**9
        assert rate == pytest.approx(learning_rate(step, steps=length, min_lr=1e-7, **fixed))

    # As it was when the number of steps was decided.
    saved = checkpoint_steps(Folder.at(run / "checkpoints"))
    assert decided == saved[-1]
    again = tmp_path / "minutes"
    shutil.copytree(run, again)
    for step in saved[:-1]:
        shutil.rmtree(again / "checkpoints" / f"step_{step:08d}")
    shutil.rmtree(again / "export")
    run_training(make_config("minutes", **changes, run__root=tmp_path))
    assert_equal_runs(again, run, steps)
    starts = [r for r in read_metrics(Folder.at(again)) if r["kind"] == "start"]
    assert [(r["step"], r["steps"]) for r in starts] == [(0, None), (decided, steps)]
    # Complete: nothing is started.
    began = time.monotonic()
    run_training(make_config("minutes", **changes, run__root=tmp_path))
    assert time.monotonic() - began < 5


def test_minutes_in_which_no_step_fits_are_one_error(make_config: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match=r"too few.*expected .* for 3 steps"):
        run_training(make_config("too_short", train__minutes=1e-4))


def training_processes() -> list[int]:
    """Return the ids of the training workers that this process's own Ray has started."""
    parents: dict[int, int] = {}
    workers = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            title = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(folder.name)] = int(stat.rsplit(")", 1)[1].split()[1])
        if title.startswith(b"ray::") and b"RayTrainWorker" in title:
            workers.append(int(folder.name))

    def is_ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_ours(parents[pid]))

    return [pid for pid in workers if is_ours(pid)]


@pytest.mark.slow
def test_another_number_of_workers_goes_on_alike(
    make_config: Callable[..., Config], whole: Path
) -> None:
    steps = 20
    changes = {"model__drop_path": 0.0, "train__validate_every": 0, "train__steps": steps}
    config = make_config("fewer", **changes)
    for step, workers in ((2, 2), (10, 1)):
        run = config.run.root / "fewer"
        thread = after_step(run, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            run_training(make_config("fewer", **changes, train__workers=workers))
        thread.join()
    run_training(config)
    ranks = [r["world_size"] for r in read_metrics(Folder.at(run)) if r["kind"] == "start"]
    assert ranks == [2, 1, 2]
    assert losses(run, steps) == pytest.approx(reference_losses(config), rel=1e-3)


@pytest.mark.slow
def test_steps_that_stay_not_finite_end_the_run_with_the_samples(
    make_config: Callable[..., Config],
) -> None:
    config = make_config(
        "nan",  # each step multiplies all weights by -999
        train__lr=1000.0,
        train__weight_decay=1.0,
        train__clip_norm="null",
        train__max_bad_steps=1,
    )
    with pytest.raises(ResourceError, match=r"not finite.*(a|b)/00000"):
        run_training(config)


def test_what_cannot_run_is_refused_in_seconds(make_config: Callable[..., Config]) -> None:
    started = time.monotonic()
    with pytest.raises(ResourceError, match="too few CPUs"):
        run_training(make_config("refused", train__cpus_per_worker=1))
    with pytest.raises(ConfigError, match="crop is larger"):
        run_training(make_config("refused", data__crop=64))
    config = make_config("refused")
    check_data(config, ensure_data(config))
    assert not (config.run.root / "refused").exists()
    assert time.monotonic() - started < 30
