"""The script of `sbatch`: its commands exist, and it starts, waits, passes signals on and ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.commands import REPOSITORY, check

SCRIPT = REPOSITORY / "cluster/slurm.sbatch"
TEXT = SCRIPT.read_text(encoding="utf-8")


def test_its_commands_exist() -> None:
    lines = re.sub(r"\\\n", " ", TEXT).splitlines()
    found = [
        re.search(r"(?:^|set -- |\$\()((?:ray|srun|python ray_jobs/\S+) .*?)\)?$", line.strip())
        for line in lines
        if not line.startswith("#")
    ]
    assert sum(check(match[1]) for match in found if match) == 4  # one Ray, its nodes, token, job


def test_what_is_to_be_filled_in_is_said_on_top() -> None:
    top, _, below = TEXT.partition("#SBATCH")
    assert "FILL IN" in top and "FILL_IN" in below and "FILL IN" not in below


def test_options_come_before_the_first_command() -> None:
    """Slurm reads no option after it."""
    lines = TEXT.splitlines()
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    options = [n for n, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert len(options) > 10 and max(options) < first


@pytest.fixture
def allocation(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a job of two nodes whose programs only note how they are called."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    said = (
        'echo "$(basename "$0") $*" "address=${RAY_ADDRESS:-}" "token=${RAY_AUTH_TOKEN:-}" >> said'
    )
    for name, says in (("ray", "echo secret"), ("srun", "sleep 0"), ("python", "echo 10.1.2.3")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{said}\n{says}\n")
        program.chmod(0o755)
    job = tmp_path / "job"
    job.write_text(
        f"#!/bin/bash\n{said}\ntrap 'sleep 0.3; echo saved >> said; exit 7' TERM\n"
        "until [[ -e go ]]; do sleep 0.05; done\nexit 5\n"
    )
    job.chmod(0o755)
    return {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "6",
        "SLURMD_NODENAME": "node1",
    }


def start(allocation: dict[str, str], *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["bash", str(SCRIPT), *command], env=allocation)


def said(allocation: dict[str, str]) -> str:
    path = Path(allocation["HOME"]) / "said"
    return path.read_text() if path.exists() else ""


def test_a_ray_on_all_nodes_and_a_command_on_it(allocation: dict[str, str]) -> None:
    (Path(allocation["HOME"]) / "go").touch()
    assert start(allocation, "job", "a b").wait(timeout=30) == 5
    lines = said(allocation).splitlines()
    (head,) = [line for line in lines if line.startswith("ray start --head")]
    (others,) = [line for line in lines if line.startswith("srun")]
    (job,) = [line for line in lines if line.startswith("job")]
    assert "--num-cpus=6" in head and "token=secret" in head
    assert "--nodes=1 --ntasks=1" in others and "--exclude=node1" in others
    assert "ray start --address=10.1.2.3:6379" in others and "token=secret" in others
    assert job == "job a b address=10.1.2.3:6379 token=secret"


def test_one_node_needs_no_others(allocation: dict[str, str]) -> None:
    (Path(allocation["HOME"]) / "go").touch()
    start(allocation | {"SLURM_JOB_NUM_NODES": "1"}, "job").wait(timeout=30)
    assert "srun" not in said(allocation)


def test_a_signal_lets_the_command_save(allocation: dict[str, str]) -> None:
    script = start(allocation, "job")
    until = time.monotonic() + 30
    while "\njob" not in said(allocation) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)  # until the command has set its trap
    script.send_signal(signal.SIGTERM)
    assert script.wait(timeout=30) == 7
    assert said(allocation).endswith("saved\n")
