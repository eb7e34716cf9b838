"""Training as a job on a running cluster with token authentication, as the README tells it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
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

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


def submit(cluster: dict[str, str], checkout: Path, *arguments: str) -> tuple[int, str]:
    """Submit a training job from a checkout; return the command's status and what it printed."""
    done = subprocess.run(
        [
            *("ray", "job", "submit", "--working-dir", ".", "--"),
            *("python", "ray_jobs/train.py", "--config", "configs/debug.yaml", *arguments),
        ],
        cwd=checkout,
        env=cluster,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


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
    status, log = submit(cluster, repository, "run.name=x", "train.steps=2")
    assert status == 0, log
    assert "train x: 2/2" in log and "Traceback" not in log
    kept = Path(cluster["HOME"]) / "vrtspike"
    assert str(kept) in log
    assert (kept / "runs/x/export/model.safetensors").is_file()
    assert "x" in [run["name"] for run in dashboard(cluster, "api/train/v2/runs/v1")["train_runs"]]


def test_a_refused_job_fails_with_one_line(cluster: dict[str, str], repository: Path) -> None:
    status, log = submit(cluster, repository, "train.stepz=2")
    assert status == 1
    assert "vrtspike: unknown setting train.stepz" in log and "did you mean train.steps" in log
    assert "Traceback" not in log


def test_a_job_without_the_token_is_refused(cluster: dict[str, str], repository: Path) -> None:
    stranger = cluster | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    status, log = submit(stranger, repository, "run.name=stranger")
    assert status != 0 and "uthenticat" in log
    assert not (Path(cluster["HOME"]) / "vrtspike/runs/stranger").exists()
