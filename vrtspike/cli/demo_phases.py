"""The phases of the demo: the commands that a user would type, one after another.

1. Simulate scenes.
2. Restore the held-out scenes with packaged weights.
3. Prepare shards.
4. Train the fused model from scratch.
5. Train the baseline without spikes, with the same size and budget.
6. Evaluate both, and the packaged models.

All phases but restoring share one local Ray (or join RAY_ADDRESS). Each phase continues where an
earlier demo stopped. In: a configuration with `scenes`. Out, in the folder
`<run.root>/<run.name>/`: `restored/`, `fused/`, `baseline/`, `results.json` and `report.html`.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vrtspike.config.config import Config
from vrtspike.errors import ConfigError
from vrtspike.runs.export import exported_step
from vrtspike.runtime.progress import clock_text
from vrtspike.runtime.ray_session import connect
from vrtspike.storage.folder import Folder, local_path
from vrtspike.weights import DEFAULT, WITHOUT_SPIKES, packaged


@dataclass(frozen=True)
class Phase:
    """One command of the demo, as a user would type it."""

    title: str
    command: tuple[str, ...]
    joins_ray: bool = True
    """Whether it uses the demo's Ray; restoring a few frames is faster in its own process."""

    def argv(self) -> list[str]:
        """Return the command with this Python interpreter, so that PATH does not matter."""
        return [sys.executable, "-m", *self.command]


def plan(path: Path, config: Config, overrides: Sequence[str] = ()) -> list[Phase]:
    """Return the phases of the demo of a configuration; raise ConfigError if it cannot run.

    `path` is the configuration file; `overrides` are passed to every command.
    """
    if config.scenes is None:
        raise ConfigError(
            "the demo renders its own scenes, but the configuration has none",
            where=path,
            fix="add a `scenes:` section, as configs/demo.yaml has",
        )
    if config.evaluation.split not in config.scenes.sequences:
        raise ConfigError(
            "the demo evaluates a split that it does not render",
            where=path,
            got=f"evaluation.split {config.evaluation.split}",
            expected=f"one of {', '.join(config.scenes.sequences)}",
        )
    common = ("--config", str(path), *(o for o in overrides if not o.startswith("run.name=")))
    out = demo_folder(config)
    train = ("vrtspike", "train", *common)
    return [
        Phase("scenes", ("vrtspike", "simulate", *common)),
        Phase("restored", restore_command(config), joins_ray=False),
        Phase("shards", ("vrtspike", "prepare", *common)),
        Phase("fused", (*train, f"run.name={config.run.name}/fused")),
        Phase("baseline", (*train, f"run.name={config.run.name}/baseline", "model.fusion=none")),
        Phase(
            "evaluation",
            (
                *("vrtspike", "evaluate", *common),
                *("--fused", str(out / "fused"), "--baseline", str(out / "baseline")),
                *("--beside", DEFAULT, "--beside", WITHOUT_SPIKES),
                *("--out", str(out)),
            ),
        ),
    ]


def demo_folder(config: Config) -> Path:
    """Return the folder that a demo writes everything but its data to."""
    return local_path(config.run.root, "a demo") / config.run.name


def restore_command(config: Config) -> tuple[str, ...]:
    """Return the command that restores the held-out scenes with the default weights.

    It overwrites pictures that were made from other weights or scenes, and keeps up-to-date ones.
    """
    scenes = str(local_path(config.data.source, "a simulation") / config.evaluation.split)
    out = str(demo_folder(config) / "restored")
    given = ("--input", scenes, "--spikes", scenes, "--out", out)
    return ("vrtspike", "restore", *given, "--overwrite")


def starting_line(config: Config) -> str:
    """Return the first line of output: the packaged weights used, and where their pictures go."""
    weights = packaged(DEFAULT)
    assert weights is not None
    step = exported_step(Folder.at(weights.parent), weights.name)
    return (
        f"starts from the packaged weights {DEFAULT} (step {step}): their pictures are in "
        f"{demo_folder(config) / 'restored'} before anything is trained; its own models, trained "
        "from scratch, come after"
    )


def run_demo(phases: Sequence[Phase], say: Callable[[str], None]) -> tuple[int, dict[str, float]]:
    """Run the phases on one Ray; stop at the first one that fails.

    Returns its exit status, or 0, and the seconds of each phase by title. `say` prints a line.
    """
    seconds: dict[str, float] = {}
    with connect() as address:
        # Nobody takes the machine of a demo away, so Ray need not watch for that.
        watcher = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
        alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        joined = {**watcher, **os.environ, "RAY_ADDRESS": address}
        for number, phase in enumerate(phases, 1):
            say(f"[{number}/{len(phases)}] {shlex.join(phase.command)}")
            started = time.monotonic()
            status = run_to_its_end(phase.argv(), joined if phase.joins_ray else alone)
            seconds[phase.title] = time.monotonic() - started
            if status:
                say(f"{phase.title} failed after {clock_text(seconds[phase.title])}")
                return status, seconds
    return 0, seconds


def run_to_its_end(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command until it ends by itself; return its exit status.

    The command handles signals, so that training can save before it ends: it gets Ctrl-C from the
    terminal, and this process passes SIGTERM on.
    """
    process = subprocess.Popen(argv, env=environment)
    before = signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    try:
        while True:
            try:
                status = process.wait()
                return status if status >= 0 else 128 - status
            except KeyboardInterrupt:
                continue
    finally:
        signal.signal(signal.SIGTERM, before)
