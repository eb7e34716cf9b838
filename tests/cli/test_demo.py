"""The demo's commands: the ones a user would type, and a fair comparison."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.cluster.commands import check
from vrtspike.cli.app import app
from vrtspike.cli.demo_phases import plan, run_demo, starting_line
from vrtspike.config.loader import load_config
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
    restored = phases.pop("restored")  # takes none: places alone
    assert restored[-2:] == ["runs/other/restored", "--overwrite"]
    assert all("train.steps=7" in command for command in phases.values())
    assert "run.name=other/fused" in phases["fused"] and "run.name=other" not in phases["fused"]
    assert phases["evaluation"][-1] == "runs/other"


@pytest.mark.usefixtures("packaged_weights")
def test_packaged_weights_restore_first_and_are_scored_beside() -> None:
    phases = commands("run.name=other", "data.source=data/x")
    assert list(phases)[:3] == ["scenes", "restored", "shards"]
    scenes, out = "data/x/held_out", "runs/other/restored"
    given = ["vrtspike", "restore", "--input", scenes, "--spikes", scenes, "--out", out]
    assert phases["restored"] == [*given, "--overwrite"]
    words = phases["evaluation"]
    beside = [words[n + 1] for n, word in enumerate(words) if word == "--beside"]
    assert beside == ["small", "small-no-spike"]
    assert not any("init_weights" in word for words in phases.values() for word in words)
    line = starting_line(load_config(Path("configs/demo.yaml"), ["run.name=other"]))
    assert "packaged weights small (step 7)" in line and out in line and "from scratch" in line


@pytest.mark.usefixtures("packaged_weights")
def test_every_command_is_one_that_could_be_typed() -> None:
    for words in commands("train.steps=7").values():
        assert check(shlex.join(words)) == 1


def test_what_the_demo_restored_is_there_when_it_starts_again(
    packaged_weights: Path,
    moving_photograph: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    moving_photograph(tmp_path / "scenes", {"a": 3})
    words = commands(f"data.source={tmp_path / 'scenes'}", f"run.root={tmp_path}")["restored"]
    again = [CliRunner().invoke(app, [*words[1:], "--device", "cpu"]) for _ in range(2)]
    assert [result.exit_code for result in again] == [0, 0], again[0].output
    assert "1 clip restored" in again[0].stdout and "0 clips restored" in again[1].stdout
    assert len(list((tmp_path / "demo/restored/a").glob("*.png"))) == 3


@pytest.mark.usefixtures("packaged_weights")
def test_all_share_one_ray_but_the_first_pictures_do_not_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    joined: list[str | None] = []

    def note(argv: Sequence[str], environment: Mapping[str, str]) -> int:
        joined.append(environment.get("RAY_ADDRESS"))
        return 0

    monkeypatch.setenv("RAY_ADDRESS", "theirs")
    monkeypatch.setattr("vrtspike.cli.demo_phases.connect", lambda: nullcontext("ours"))
    monkeypatch.setattr("vrtspike.cli.demo_phases.run_to_its_end", note)
    path = Path("configs/demo.yaml")
    status, seconds = run_demo(plan(path, load_config(path)), lambda line: None)
    assert status == 0 and joined == ["ours" if title != "restored" else None for title in seconds]


def test_the_demo_says_what_it_starts_from(
    packaged_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vrtspike.cli.demo_phases.run_demo", lambda phases, say: (3, {}))
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 3 and "small (step 7)" in result.stdout.splitlines()[0]


def test_a_demo_without_scenes_is_refused() -> None:
    path = Path("configs/demo.yaml")
    with pytest.raises(ConfigError, match="has none"):
        plan(path, load_config(path, ["scenes=null"]))
    with pytest.raises(ConfigError, match=r"evaluation\.split test"):
        plan(path, load_config(path, ["evaluation.split=test"]))


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
        "import os, sys\nfrom vrtspike.cli.demo_phases import run_to_its_end\n"
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
