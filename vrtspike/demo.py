"""The main job from nothing to a report: the commands a user would type, one after another.

Simulate scenes, prepare shards, train the fused model and the baseline without spikes (equal size
and budget), evaluate both on held-out scenes. All share one local Ray (or join RAY_ADDRESS), and
each continues where an earlier demo stopped. In: a configuration with `scenes`. Out:
`<run.root>/<run.name>/{fused,baseline}/` and, beside them, results.json and report.html.
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

from vrtspike.cluster import connect
from vrtspike.errors import ConfigError
from vrtspike.progress import clock_text
from vrtspike.settings import Config
from vrtspike.storage import local_path

TRAIN_SCRIPT = Path("ray_jobs/train.py")


@dataclass(frozen=True)
class Phase:
    """One command of the demo, as a user would type it."""

    title: str
    command: tuple[str, ...]

    def argv(self) -> list[str]:
        """Return the same command for this interpreter, whatever the PATH is."""
        program, *rest = self.command
        return [sys.executable, *(["-m", "vrtspike"] if program == "vrtspike" else []), *rest]


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
    if not TRAIN_SCRIPT.is_file():
        raise ConfigError(
            f"no {TRAIN_SCRIPT} here",
            where=Path.cwd(),
            fix="run the demo in a checkout of vrtspike",
        )
    common = ("--config", str(path), *(o for o in overrides if not o.startswith("run.name=")))
    out = local_path(config.run.root, "a demo") / config.run.name
    train = ("python", str(TRAIN_SCRIPT), *common)
    return [
        Phase("scenes", ("vrtspike", "simulate", *common)),
        Phase("shards", ("vrtspike", "prepare", *common)),
        Phase("fused", (*train, f"run.name={config.run.name}/fused")),
        Phase("baseline", (*train, f"run.name={config.run.name}/baseline", "model.fusion=none")),
        Phase(
            "evaluation",
            (
                *("vrtspike", "evaluate", *common),
                *("--fused", str(out / "fused"), "--baseline", str(out / "baseline")),
                *("--out", str(out)),
            ),
        ),
    ]


def run_demo(phases: Sequence[Phase], say: Callable[[str], None]) -> tuple[int, dict[str, float]]:
    """Run the phases on one Ray; return the first exit status that is not 0, and the seconds."""
    seconds: dict[str, float] = {}
    with connect() as address:
        # The machine of a demo stays: nobody needs to watch whether it is taken away.
        watcher = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
        environment = {**watcher, **os.environ, "RAY_ADDRESS": address}
        for number, phase in enumerate(phases, 1):
            say(f"[{number}/{len(phases)}] {shlex.join(phase.command)}")
            started = time.monotonic()
            status = run_to_its_end(phase.argv(), environment)
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
