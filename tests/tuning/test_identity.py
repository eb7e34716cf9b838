"""A sweep goes on as the same one only: its settings and its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_preflight import manifest
from tests.tuning.sweeps import SPACE, config_of
from vrtspike.config.loader import change
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.storage.folder import Folder
from vrtspike.tuning.identity import SWEEP, check_same_sweep

CONFIG = config_of(SPACE, search="optuna", trials=4, scheduler="asha", grace=0.4)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return the folder of a sweep that was started."""
    found = Folder.at(tmp_path)
    check_same_sweep(CONFIG, manifest(), found)
    return found


def again(folder: Folder, changes: dict[str, Any]) -> None:
    check_same_sweep(change(CONFIG, changes), manifest(), folder)


def test_the_same_sweep_goes_on(folder: Folder) -> None:
    again(folder, {})
    again(folder, {})


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"train.lr": 0.1}, "train.lr"),
        ({"run.seed": 1}, "run.seed"),
        ({"train.workers": 1}, "train.workers"),
        ({"evaluation.split": "val"}, "evaluation.split"),
        ({"data.voxels": "log1p"}, "data.voxels"),
        ({"sweep.seed": 1}, "sweep.seed"),
        ({"sweep.metric": "ssim"}, "sweep.metric"),
        ({"sweep.grace": 0.5}, "sweep.grace"),
        ({"sweep.search": "random"}, "sweep.search"),
        ({"sweep.impossible": "skip"}, "sweep.impossible"),
        (
            {"sweep.space": {"model.spike.heads": {"choice": [1, 2, 4]}}},
            "sweep.space.model.spike.heads.choice",
        ),
        ({"sweep.space": {"model.heads": {"choice": [2]}}}, "sweep.space.model.heads.choice"),
    ],
)
def test_another_setting_is_refused_by_its_name(
    folder: Folder, changes: dict[str, Any], key: str
) -> None:
    before = folder.read(SWEEP)
    with pytest.raises(ConfigError) as caught:
        again(folder, changes)
    message = str(caught.value)
    assert f"the sweep 'heads' was started with another {key} [{folder}]: got " in message
    assert "start a sweep of another run.name" in message and "\n" not in message
    assert folder.read(SWEEP) == before
    again(folder, {})


def test_what_trials_do_not_depend_on_may_change(folder: Folder) -> None:
    free = {
        "run.name": "other",
        "run.max_failures": 9,
        "scenes.frames": 9,
        "camera.noise": 0.5,
        "data.shards": "elsewhere",
        "loss.weights_dir": "w",
        "train.checkpoint_every": 3,
        "train.hang_timeout_s": 9.0,
        "sweep.trials": 8,
        "sweep.repeats": 5,
        "sweep.finalists": 0,
        "sweep.concurrency": 1,
    }
    for key, value in free.items():
        again(folder, {key: value})
    # What it is now is noted: the next start is compared with this one.
    assert json.loads(folder.read(SWEEP))["config"]["sweep"]["concurrency"] == 1
    again(folder, free)


def test_other_data_is_refused(folder: Folder) -> None:
    other = manifest().model_copy(update={"fingerprint": "e" * 64})
    with pytest.raises(ConfigError, match=r"the sweep 'heads' was started with other training"):
        check_same_sweep(CONFIG, other, folder)


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b'{"config": 1}', b"\xff"])
def test_a_damaged_note_is_one_line(folder: Folder, damage: bytes) -> None:
    folder.write(SWEEP, damage)
    with pytest.raises(DataFormatError, match=r"sweep\.json is damaged") as caught:
        again(folder, {})
    assert "\n" not in str(caught.value)


def test_no_keys_of_a_store_are_written_down(tmp_path: Path) -> None:
    config = change(CONFIG, {"run.root": "s3://me:sl/ash@bucket/runs?secret_key=abc"})
    check_same_sweep(config, manifest(), Folder.at(tmp_path))
    text = (tmp_path / SWEEP).read_text()
    assert "bucket" in text and "sl/ash" not in text and "abc" not in text
    check_same_sweep(config, manifest(), Folder.at(tmp_path))
