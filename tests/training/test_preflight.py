"""What cannot work is refused with the numbers, before any worker starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

from vrtspike.checkpoints.manifest import Checkpoint
from vrtspike.cli.app import app
from vrtspike.config.config import Config
from vrtspike.config.loader import load_config
from vrtspike.datasets.info import DatasetInfo
from vrtspike.errors import CheckpointError, ConfigError, DataFormatError, ResourceError
from vrtspike.samples.shards import Manifest, PrepareSettings, SampleRef, Shape, ShardFile, Split
from vrtspike.storage.folder import Folder
from vrtspike.training import preflight
from vrtspike.training.preflight import check_data, check_model_and_loss, check_resume, data_cpus


def config(**changes: Any) -> Config:
    """Return a small configuration with dotted changes (`train__steps=3`)."""
    tree: dict[str, Any] = {
        "data": {"frames": 3, "crop": 32},
        "model": {
            "channels": 8,
            "refine_channels": 8,
            "blocks": 1,
            "heads": 2,
            "deformable_groups": 2,
            "flow_channels": [8, 8, 8, 8],
            "spike": {"bins": 8, "heads": 2},
        },
        "loss": {"vgg": 0.0},
        "train": {"gpu": False, "workers": 2, "cpus_per_worker": 0.5},
    }
    for key, value in changes.items():
        *sections, name = key.split("__")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    return Config.model_validate(tree)


def manifest(**changes: Any) -> Manifest:
    """Return the manifest of shards of 40x48 frames and spikes."""
    info = {
        "spike": {"height": 40, "width": 48, "rate_hz": 1000.0, "threshold": 2.0},
        "frame": {"height": 40, "width": 48},
        "steps_per_frame": 64,
        "exposure": (0, 56),
        "target_step": 28,
        "source": "a test",
    }
    described = DatasetInfo.model_validate(info | changes)
    split = Split(
        shape=Shape(t=3, h=40, w=48, hs=40, ws=48),
        shards=(
            ShardFile(
                file="train/00000.parquet",
                rows=1,
                bytes=1,
                sha256="0",
                timeline=described.timeline,
                threshold=2.0,
            ),
        ),
        samples=(SampleRef(id="a/000000", shard=0, row=0),),
    )
    made = PrepareSettings(
        layout="vrtspike", frames=3, stride=1, tile=None, shard_samples=2, splits=("train", "val")
    )
    values: dict[str, Any] = {
        "version": 2,
        "source": "elsewhere",
        "settings": made,
        "inputs": "i",
        "fingerprint": "f" * 64,
        "info": described,
        "splits": {"train": split, "val": split},
        "refused": (),
    }
    return Manifest.model_validate(values)


def test_two_half_workers_leave_a_cpu_for_data() -> None:
    assert data_cpus(config(), {"CPU": 2.0}) == 0.5
    assert data_cpus(config(), {"CPU": 100.0}) == 8.0
    assert data_cpus(config(train__workers=1, train__batch=1), {"CPU": 2.0}) == 1.5


@pytest.mark.parametrize(
    ("cpus", "workers", "share", "fix"),
    [(2, 2, 1.0, "cpus_per_worker=0.5"), (1, 1, 1.0, "2 CPUs or more"), (4, 8, 0.5, "=0.37")],
)
def test_too_few_cpus_are_refused_with_a_way_out(
    cpus: int, workers: int, share: float, fix: str
) -> None:
    settings = config(train__workers=workers, train__cpus_per_worker=share)
    with pytest.raises(ResourceError, match=fix) as error:
        data_cpus(settings, {"CPU": float(cpus)})
    assert f"got {cpus} CPUs" in str(error.value)
    if "=0" in fix:
        found = config(train__workers=workers, train__cpus_per_worker=float(fix.split("=")[1]))
        assert data_cpus(found, {"CPU": float(cpus)}) > 0


def test_a_run_that_may_shrink_starts_where_fewer_workers_fit() -> None:
    settings = config(train__workers=4, train__batch=4, train__min_workers=2)
    assert data_cpus(settings, {"CPU": 2.0}) == 0.5
    assert data_cpus(settings, {"CPU": 4.0}) == 0.5
    with pytest.raises(ResourceError, match=r"expected 2: 2 workers x 0\.5.*min_workers"):
        data_cpus(settings, {"CPU": 1.5})


def test_too_few_gpus_are_refused() -> None:
    with pytest.raises(ResourceError, match="got 1 GPUs, expected 2"):
        data_cpus(config(train__gpu=True), {"CPU": 8.0, "GPU": 1.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__frames": 4}, r"another data\.frames.*got 3, expected 4"),
        ({"data__stride": 2}, r"another data\.stride"),
        ({"data__tile": 32}, r"another data\.tile"),
        ({"data__crop": 41}, r"got data\.crop 41, expected at most 40"),
        ({"model__spike__bins": 57}, r"got model\.spike\.bins 57, expected at most 56"),
    ],
)
def test_settings_that_the_shards_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_data(config(**changes), manifest())


def test_a_missing_split_is_named() -> None:
    with pytest.raises(DataFormatError, match="no split 'test'"):
        check_data(config(data__val_split="test"), manifest())


def test_spike_grids() -> None:
    half = {"height": 20, "width": 24, "rate_hz": 1000.0, "threshold": 2.0}
    check_data(config(), manifest(spike=half))
    with pytest.raises(ConfigError, match="a multiple of 2"):
        check_data(config(data__crop=33), manifest(spike=half))
    odd = {"height": 30, "width": 48, "rate_hz": 1000.0, "threshold": 2.0}
    with pytest.raises(ConfigError, match="whole number of times coarser"):
        check_data(config(), manifest(spike=odd))
    check_data(config(model__fusion="none", model__spike__bins=60), manifest(spike=odd))


def test_model_and_loss_are_tried(tmp_path: Path) -> None:
    check_model_and_loss(config())
    with pytest.raises(ConfigError, match=r"model\.heads"):
        check_model_and_loss(config(model__heads=3))
    with pytest.raises(ConfigError, match="no loss term"):
        check_model_and_loss(config(loss__charbonnier=0.0))
    with pytest.raises(CheckpointError, match="no weights to start from"):
        check_model_and_loss(config(train__init_weights=tmp_path / "none.safetensors"))


@pytest.mark.usefixtures("packaged_weights")
def test_weights_to_start_from_are_tried(repository: Path) -> None:
    def check(weights: str, *others: str) -> None:
        overrides = [f"train.init_weights={weights}", "loss.vgg=0", *others]
        check_model_and_loss(load_config(repository / "configs/model/small.yaml", overrides))

    for name in ("small", "small-no-spike", "flow"):
        check(name)
    with pytest.raises(CheckpointError, match="do not have the model's shapes") as refusal:
        check("small", "model.channels=24")
    assert "small.safetensors" in str(refusal.value) and "\n" not in str(refusal.value)
    with pytest.raises(
        CheckpointError, match=r"\[large\].*packaged weights: flow, small, small-no"
    ):
        check("large")


@pytest.mark.usefixtures("packaged_weights")
def test_the_command_refuses_them_before_ray_is_started(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(**_: object) -> NoReturn:
        raise AssertionError("Ray was started")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("vrtspike.cli.train.connect", start)
    words = ["train", "--config", repository / "configs/demo.yaml", f"run.root={tmp_path}"]
    words += [f"data.shards={tmp_path}", "train.init_weights=small", "train.cpus_per_worker=0.1"]
    result = CliRunner().invoke(app, [str(word) for word in (*words, "model.channels=24")])
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("vrtspike: ") and "do not have the model's shapes" in line


def test_what_a_run_may_change_when_it_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"config": config().model_dump(mode="json"), "fingerprint": "f" * 64}
    saved = Checkpoint(Folder.at(tmp_path), 10, 2, facts, ())
    monkeypatch.setattr(preflight, "newest", lambda folder, content: (saved, []))

    def resume(found: Manifest | None = None, **changes: Any) -> int:
        return check_resume(config(**changes), found or manifest(), Folder.at(tmp_path))

    assert resume() == 10
    assert resume(train__workers=1, train__log_every=3, run__max_failures=0) == 10
    with pytest.raises(ConfigError, match=r"another train\.lr.*got 0\.1, expected 0\.0004"):
        resume(train__lr=0.1)
    with pytest.raises(ConfigError, match=r"another model\.spike\.bins"):
        resume(model__spike__bins=7)
    with pytest.raises(ConfigError, match="past its last step"):
        resume(train__steps=9)
    with pytest.raises(ConfigError, match="other training data"):
        resume(manifest().model_copy(update={"fingerprint": "e" * 64}))
