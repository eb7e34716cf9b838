"""Where a run's files lie, on a machine and in a Ray job's copy of the working folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vrtspike import WAIT_POLICY
from vrtspike.config.config import Config
from vrtspike.config.loader import load_config
from vrtspike.runtime.ray_session import (
    OBJECT_STORE_LIMIT,
    environment_of_workers,
    object_store_bytes,
    resolve_path,
    resolve_paths,
)

JOB = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}


def test_workers_of_a_cluster_wait_as_this_process_does() -> None:
    assert environment_of_workers({WAIT_POLICY: "passive"}) == {WAIT_POLICY: "passive"}
    assert environment_of_workers({}) == {}


def test_a_variable_that_the_job_has_set_is_not_set_again() -> None:
    job = {"runtime_env": {"env_vars": {WAIT_POLICY: "active"}}}
    environment = {WAIT_POLICY: "active", "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job)}
    assert environment_of_workers(environment) == {}
    assert environment_of_workers(JOB | {WAIT_POLICY: "passive"}) == {WAIT_POLICY: "passive"}


@pytest.mark.parametrize(("chosen", "expected"), [(None, "passive"), ("active", "active")])
def test_threads_wait_without_spinning_unless_the_user_says_otherwise(
    chosen: str | None, expected: str
) -> None:
    """The policy stands before torch is loaded, and programs that are started inherit it."""
    environment = {name: value for name, value in os.environ.items() if name != WAIT_POLICY}
    program = "import sys, os, vrtspike; assert 'torch' not in sys.modules; print(os.environ[%r])"
    found = subprocess.run(
        [sys.executable, "-c", program % WAIT_POLICY],
        env=environment | ({WAIT_POLICY: chosen} if chosen else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == expected


def copied(tmp_path: Path) -> Path:
    """Make a folder that looks like Ray's copy of a working folder."""
    folder = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_1"
    folder.mkdir(parents=True)
    return folder


def test_relative_paths_become_absolute_and_absolute_ones_stay(tmp_path: Path) -> None:
    config = load_config(None, ["data.shards=/elsewhere/shards", "loss.weights_dir=../w"])
    resolved = resolve_paths(config, folder=tmp_path, environment={})
    assert resolved.run.root == tmp_path / "runs"
    assert resolved.data.source == tmp_path / "data/scenes"
    assert resolved.data.shards == Path("/elsewhere/shards")
    assert resolved.loss.weights_dir == tmp_path / "../w"
    assert resolved.train.init_weights is None


@pytest.mark.usefixtures("packaged_weights")
def test_a_name_of_packaged_weights_stays_one(tmp_path: Path) -> None:
    places = {"mine.pth": tmp_path / "mine.pth", "./small": tmp_path / "small"}
    for given, kept in ({"small": "small"} | places).items():
        config = load_config(None, [f"train.init_weights={given}", "loss.weights_dir=small"])
        resolved = resolve_paths(config, folder=tmp_path, environment={})
        assert resolved.train.init_weights == (str(kept),)
        assert resolved.loss.weights_dir == tmp_path / "small"


def test_nothing_but_paths_changes(tmp_path: Path) -> None:
    resolved = resolve_paths(Config(), folder=tmp_path, environment={})
    assert resolved.model == Config().model and resolved.train == Config().train


def test_a_job_in_a_copy_keeps_its_files_at_home(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "weights").mkdir()
    config = load_config(None, ["loss.weights_dir=weights"])
    resolved = resolve_paths(config, folder=folder, home=tmp_path, environment=JOB)
    assert resolved.run.root == tmp_path / "vrtspike/runs"
    assert resolved.data.shards == tmp_path / "vrtspike/data/shards"
    assert resolved.loss.weights_dir == folder / "weights"


def test_runs_leave_the_copy_even_when_a_folder_of_that_name_was_uploaded(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "runs").mkdir()
    resolved = resolve_paths(Config(), folder=folder, home=tmp_path, environment=JOB)
    assert resolved.run.root == tmp_path / "vrtspike/runs"


def test_what_a_job_writes_leaves_the_copy_and_what_it_reads_may_be_in_it(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "run").mkdir()
    place = {"folder": folder, "home": tmp_path, "environment": JOB}
    assert resolve_path(Path("run"), **place) == folder / "run"
    assert resolve_path(Path("run"), written=True, **place) == tmp_path / "vrtspike/run"
    assert resolve_path(Path("absent"), **place) == tmp_path / "vrtspike/absent"
    assert resolve_path(Path("/absent"), written=True, **place) == Path("/absent")


def test_a_job_without_a_copy_stays_where_it_is(tmp_path: Path) -> None:
    resolved = resolve_paths(Config(), folder=tmp_path, home=tmp_path / "home", environment=JOB)
    assert resolved.run.root == tmp_path / "runs"


def test_the_object_store_is_bounded() -> None:
    assert 2**26 < object_store_bytes() <= OBJECT_STORE_LIMIT


def test_a_local_ray_starts_though_the_shell_that_started_us_has_ended(tmp_path: Path) -> None:
    """As after `sh -c 'vrtspike train ... &'`: the group that we come from is gone meanwhile."""
    script = (
        "import os, sys, time\n"
        "from vrtspike.runtime.ray_session import _own_process_group\n"
        "parent = os.getpid()\n"
        "if os.fork():\n"
        "    time.sleep(0.5)\n"
        "    sys.exit()\n"
        "with _own_process_group():\n"
        "    while os.getppid() == parent:\n"
        "        time.sleep(0.05)\n"
        "    time.sleep(0.5)\n"
        "open('back', 'w').close()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, process_group=0)
    assert process.wait(timeout=60) == 0
    until = time.monotonic() + 30
    while not (tmp_path / "back").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
