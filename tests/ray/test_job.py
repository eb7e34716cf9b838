"""Jobs on a running cluster with token authentication, as docs/clusters.md tells it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.ray.faults import RAYS_OWN, free_port, last_step, records
from vrtspike.checkpoints.manifest import checkpoint_steps
from vrtspike.storage.folder import Folder

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """Run `ray start --head` with a token; give the environment of someone who submits jobs."""
    home = Path(tempfile.mkdtemp(prefix="vs-"))  # short: paths of sockets are limited
    port, dashboard, agent = free_port(), free_port(), free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    head = psutil.Popen(
        [
            *("ray", "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={home / 'ray'}"),
            *(f"--port={port}", f"--dashboard-port={dashboard}"),
            f"--dashboard-agent-listen-port={agent}",  # the default is taken if another Ray runs
            f"--object-store-memory={300 * 2**20}",
        ],
        env=environment,
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    environment["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{dashboard}"
    try:
        deadline = time.monotonic() + 90
        trial = ["ray", "job", "submit", "--", "true"]  # the agent that runs jobs comes last
        while (
            ready := subprocess.run(
                trial, env=environment, capture_output=True, text=True, check=False
            )
        ).returncode:
            assert time.monotonic() < deadline and head.poll() is None, ready.stdout + ready.stderr
            time.sleep(1)
        yield environment
    finally:
        started = [*head.children(recursive=True), head]
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(started, timeout=30)
        shutil.rmtree(home, ignore_errors=True)


def ray_job(cluster: dict[str, str], checkout: Path, *arguments: str) -> tuple[int, str]:
    """Run `ray job ...` in a checkout; return its status and what it printed."""
    done = subprocess.run(
        ["ray", "job", *arguments],
        cwd=checkout,
        env=cluster,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def submit(
    cluster: dict[str, str], checkout: Path, script: str, *arguments: str, options: str = ""
) -> tuple[int, str]:
    """Submit a job from a checkout; return the command's status and what it printed."""
    job = ("python", f"ray_jobs/{script}.py", *arguments)
    return ray_job(cluster, checkout, "submit", "--working-dir=.", *options.split(), "--", *job)


TRAIN = ("train", "--config", "configs/debug.yaml")


def dashboard(cluster: dict[str, str], page: str) -> dict[str, Any]:
    """Return what Ray's dashboard knows."""
    request = urllib.request.Request(
        f"{cluster['RAY_API_SERVER_ADDRESS']}/{page}",
        headers={"Authorization": f"Bearer {cluster['RAY_AUTH_TOKEN']}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def test_a_submitted_job_trains_from_a_fresh_checkout(
    cluster: dict[str, str], repository: Path
) -> None:
    """Nothing is prepared: the job renders its scenes, shards them and trains."""
    status, log = submit(cluster, repository, *TRAIN, "run.name=x", "train.steps=2")
    assert status == 0, log
    assert "train x: 2/2" in log and "Traceback" not in log
    kept = Path(cluster["HOME"]) / "vrtspike"
    assert str(kept) in log
    assert (kept / "runs/x/export/model.safetensors").is_file()
    assert "x" in [run["name"] for run in dashboard(cluster, "api/train/v2/runs/v1")["train_runs"]]


def test_the_run_of_a_job_is_evaluated_by_another_one(
    cluster: dict[str, str], repository: Path
) -> None:
    """The shards are there already, and so is the run (by the test above)."""
    config = ("--config", "configs/debug.yaml")
    status, log = submit(cluster, repository, "prepare", *config)
    assert status == 0 and "Traceback" not in log, log
    where = ("--fused", "runs/x", "--out", "runs/x_scores")
    status, log = submit(cluster, repository, "evaluate", *config, *where)
    assert status == 0 and "Traceback" not in log, log
    results = json.loads(
        (Path(cluster["HOME"]) / "vrtspike/runs/x_scores/results.json").read_text()
    )
    assert {"blurred", "fused"} <= results["held_out"].keys()


def test_the_run_of_a_job_restores_video(cluster: dict[str, str], repository: Path) -> None:
    """Scenes and run are there (by the tests above); a finished clip is not done again."""
    scenes = "data/debug/scenes/held_out"
    where = ("--weights", "runs/x", "--input", scenes, "--spikes", scenes, "--out", "restored")
    status, log = submit(cluster, repository, "restore", *where, "--tile-frames", "4")
    assert status == 0 and "Traceback" not in log and "1 clip restored" in log, log
    kept = Path(cluster["HOME"]) / "vrtspike"
    (clip,) = (kept / "restored").iterdir()
    names = {image.name for image in (kept / scenes / clip.name / "blurred").iterdir()}
    assert {file.name for file in clip.iterdir()} == {*names, "restored.json"}
    status, log = submit(cluster, repository, "restore", *where, "--tile-frames", "4")
    assert status == 0 and "restored already" in log, log


def test_a_submitted_sweep_leaves_results_and_nothing_else(
    cluster: dict[str, str], repository: Path
) -> None:
    status, log = submit(
        *(cluster, repository, "tune", "--config", "configs/tune/debug.yaml"),
        *("train.steps=2", "sweep.trials=1", "sweep.scheduler=none", "sweep.grace=null"),
        "sweep.finalists=0",
    )
    assert status == 0 and "Traceback" not in log, log
    sweep = Path(cluster["HOME"]) / "vrtspike/runs/tune_debug"
    results = json.loads((sweep / "results.json").read_text())
    assert results["complete"]
    assert {row["name"] for row in results["trials"]} == {"baseline-seed0", "trial-000"}
    deadline = time.monotonic() + 60
    while left := left_on(cluster):
        assert time.monotonic() < deadline, left
        time.sleep(1)


def left_on(cluster: dict[str, str]) -> list[str]:
    """Name the actors and placement groups that jobs have left."""
    found = []
    for kind in ("actors", "placement_groups"):
        for each in dashboard(cluster, f"api/v0/{kind}?limit=1000")["data"]["result"]["result"]:
            name = each.get("class_name", "")
            if each["state"] not in ("DEAD", "REMOVED") and name not in RAYS_OWN:
                found.append(f"{kind} {name} {each['state']}")
    return found


def test_a_stopped_job_saves_and_the_next_one_continues(
    cluster: dict[str, str], repository: Path
) -> None:
    named = (*TRAIN, "run.name=stopped", "train.checkpoint_every=1000", "train.validate_every=0")
    options = "--no-wait --submission-id=to-be-stopped"
    status, log = submit(cluster, repository, *named, "train.steps=1000", options=options)
    assert status == 0, log
    run = Path(cluster["HOME"]) / "vrtspike/runs/stopped"
    deadline = time.monotonic() + 120
    while last_step(run) < 2:
        assert time.monotonic() < deadline, ray_job(cluster, repository, "logs", "to-be-stopped")
        time.sleep(0.5)
    status, log = ray_job(cluster, repository, "stop", "to-be-stopped")
    assert status == 0, log
    saved = checkpoint_steps(Folder.at(run / "checkpoints"))
    assert saved and saved[0] >= 2
    status, log = submit(cluster, repository, *named, f"train.steps={saved[0] + 2}")
    assert status == 0, log
    assert [record["step"] for record in records(run, "start")] == [0, saved[0]]


def test_a_refused_job_fails_with_one_line(cluster: dict[str, str], repository: Path) -> None:
    status, log = submit(cluster, repository, *TRAIN, "train.stepz=2")
    assert status == 1
    assert "vrtspike: unknown setting train.stepz" in log and "did you mean train.steps" in log
    assert "Traceback" not in log


def test_a_job_without_the_token_is_refused(cluster: dict[str, str], repository: Path) -> None:
    stranger = cluster | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    status, log = submit(stranger, repository, *TRAIN, "run.name=stranger")
    assert status != 0 and "uthenticat" in log
    assert not (Path(cluster["HOME"]) / "vrtspike/runs/stranger").exists()
