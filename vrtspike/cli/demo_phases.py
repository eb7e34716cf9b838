"""The main job from nothing to a report: the commands a user would type, one after another.

Simulate scenes, restore the held-out ones with packaged weights, prepare shards, train the fused
model and the baseline without spikes (equal size and budget) from scratch, evaluate both beside the
packaged models. All but restoring share one local Ray (or join RAY_ADDRESS), and each continues
where an earlier demo stopped. In: a configuration with `scenes`. Out:
`<run.root>/<run.name>/{restored,fused,baseline}/` and, beside them, results.json and report.html.
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
    """Whether it computes on the demo's Ray; for a few frames no workers need to be started."""

    def argv(self) -> list[str]:
        """Return the same command for this interpreter, whatever the PATH is."""
        return [sys.executable, "-m", *self.command]


def plan(path: Path, config: Config, overrides: Sequence[str] = ()) -> list[Phase]:
    """List the phases of the demo that a configuration describes."""
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
    """Return the folder of what a demo writes, but for its data."""
    return local_path(config.run.root, "a demo") / config.run.name


def restore_command(config: Config) -> tuple[str, ...]:
    """Return the command that restores the held-out scenes with what restores by default.

    It replaces pictures that another version of the weights or scenes made, and keeps its own.
    """
    scenes = str(local_path(config.data.source, "a simulation") / config.evaluation.split)
    out = str(demo_folder(config) / "restored")
    given = ("--input", scenes, "--spikes", scenes, "--out", out)
    return ("vrtspike", "restore", *given, "--overwrite")


def starting_line(config: Config) -> str:
    """Say which packaged weights the demo starts from, and where their pictures are to be."""
    weights = packaged(DEFAULT)
    assert weights is not None
    step = exported_step(Folder.at(weights.parent), weights.name)
    return (
        f"starts from the packaged weights {DEFAULT} (step {step}): their pictures are in "
        f"{demo_folder(config) / 'restored'} before anything is trained; its own models, trained "
        "from scratch, come after"
    )


def run_demo(phases: Sequence[Phase], say: Callable[[str], None]) -> tuple[int, dict[str, float]]:
    """Run the phases on one Ray; return the first exit status that is not 0, and the seconds."""
    seconds: dict[str, float] = {}
    with connect() as address:
        # The machine of a demo stays: nobody needs to watch whether it is taken away.
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
    """Run a command and return its exit status; a signal is the command's to answer.

    Ctrl-C reaches it from the terminal, SIGTERM is passed on: training saves before it ends.
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
