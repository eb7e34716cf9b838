"""The demo's commands: the ones a user would type, and a fair comparison."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vrtspike.config import load_config
from vrtspike.demo import plan
from vrtspike.errors import ConfigError


@pytest.fixture(autouse=True)
def in_checkout(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in the checkout, as the demo must."""
    monkeypatch.chdir(repository)


def commands(*overrides: str) -> dict[str, list[str]]:
    """Return the command of each phase of the shipped demo."""
    path = Path("configs/demo.yaml")
    return {p.title: list(p.command) for p in plan(path, load_config(path, overrides), overrides)}


def test_fused_and_baseline_differ_in_name_and_fusion_alone() -> None:
    phases = commands("train.steps=7")
    only_fused = set(phases["fused"]) - set(phases["baseline"])
    only_baseline = set(phases["baseline"]) - set(phases["fused"])
    assert only_fused == {"run.name=demo/fused"}
    assert only_baseline == {"run.name=demo/baseline", "model.fusion=none"}


def test_overrides_reach_every_phase_but_the_name_stays_a_folder() -> None:
    phases = commands("train.steps=7", "run.name=other")
    assert all("train.steps=7" in command for command in phases.values())
    assert "run.name=other/fused" in phases["fused"] and "run.name=other" not in phases["fused"]
    assert phases["evaluation"][-1] == "runs/other"


def test_a_demo_without_scenes_or_outside_a_checkout_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path("configs/demo.yaml")
    with pytest.raises(ConfigError, match="has none"):
        plan(path, load_config(path, ["scenes=null"]))
    with pytest.raises(ConfigError, match=r"evaluation\.split test"):
        plan(path, load_config(path, ["evaluation.split=test"]))
    config = load_config(path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="in a checkout"):
        plan(path, config)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_answered_by_the_phase(number: int, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    phase = (
        "import pathlib, signal, sys, time\n"
        "stop = lambda *_: (time.sleep(0.4), sys.exit(7))\n"
        "signal.signal(signal.SIGTERM, stop); signal.signal(signal.SIGINT, stop)\n"
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(30)\n"
    )
    demo = (
        "import os, sys\nfrom vrtspike.demo import run_to_its_end\n"
        f"sys.exit(run_to_its_end([sys.executable, '-c', {phase!r}], os.environ))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", demo], start_new_session=True)
    while not ready.exists():
        time.sleep(0.02)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    assert process.wait(timeout=20) == 7
