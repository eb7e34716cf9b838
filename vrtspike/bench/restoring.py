"""What `vrtspike restore` takes: memory by length and by bound, speed by workers and by size.

In: settings of a model (its weights are random, which costs the same) and sizes. Out: a `Restored`
of each case. Each case is the command itself, in a process of its own, on a clip made for it: a
photograph that moves, repeated to its length. Peaks are the kernel's, of the whole
process, Python and its libraries included; with several workers of the largest one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vrtspike.bench.generated import SPLIT, Sizes, make_clip, sequence_name, write_folder
from vrtspike.bench.model import Machine
from vrtspike.config.config import Config
from vrtspike.config.loader import dump_config
from vrtspike.errors import ResourceError
from vrtspike.model import build_model
from vrtspike.restoration.segment_worker import RestoreSettings
from vrtspike.restoration.tiling import spans

CLIP_FRAMES = 12
"""Frames that are made; longer clips repeat them."""
SPEED_FRAMES = 4 * CLIP_FRAMES
"""Frames whose seconds are told."""
USUAL_TILE = 384
"""Side of the tiles for which the pixels computed twice are told."""


@dataclass(frozen=True)
class RestoreCase:
    """One run of the command."""

    height: int
    width: int
    frames: int
    workers: int = 1
    threads: int | None = None
    bound: int | None = None
    """Bytes that all workers may take; None: as the command chooses."""

    @property
    def arguments(self) -> list[str]:
        """Return the options that differ from case to case."""
        options = {"workers": self.workers, "threads": self.threads, "memory": self.bound}
        given = {name: value for name, value in options.items() if value is not None}
        return [text for name, value in given.items() for text in (f"--{name}", str(value))]


@dataclass(frozen=True)
class Restored:
    """What a case took."""

    case: RestoreCase
    seconds: float
    """From the first frame's reading to the last result's delivery, starts of workers included."""
    busy_s: float
    """Of that, what a worker restored, on average: without starts and ends."""
    peak_bytes: int
    tile: int | None

    @property
    def frames_s(self) -> float:
        """Return the frames restored a second."""
        return self.case.frames / self.seconds

    @property
    def busy_frames_s(self) -> float:
        """Return the frames restored a second while all workers are at work."""
        return self.case.frames / self.busy_s


@dataclass(frozen=True)
class RestorePlan:
    """What to measure."""

    size: tuple[int, int]
    """Rows and columns of the clips whose length and workers vary."""
    lengths: tuple[int, ...]
    workers: tuple[int, ...]
    worker_frames: int
    bounds: tuple[int, ...]
    bound_size: tuple[int, int]
    gpus: int = 0
    """Of this machine: a worker has one of its own, and threads are not counted."""
    speed_size: tuple[int, int] | None = None
    """Rows and columns of the clip whose seconds a frame are told."""

    @property
    def groups(self) -> dict[str, list[RestoreCase]]:
        """Return the cases: by length, by workers (on a CPU of one thread), by bound, by size."""
        plain = RestoreCase(*self.size, self.worker_frames, threads=None if self.gpus else 1)
        return {
            "length": [RestoreCase(*self.size, frames) for frames in self.lengths],
            "workers": [replace(plain, workers=count) for count in self.workers],
            "bound": [
                RestoreCase(*self.bound_size, CLIP_FRAMES, bound=bound) for bound in self.bounds
            ],
            "speed": [RestoreCase(*self.speed_size, SPEED_FRAMES)] if self.speed_size else [],
        }


@dataclass(frozen=True)
class RestoreReport:
    """What `vrtspike bench restore` found."""

    machine: Machine
    groups: Mapping[str, Sequence[Restored]]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "computed_twice": computed_over_frame(720, 1280, 100)}


def run_restore_plan(
    config: Config, plan: RestorePlan, machine: Machine, update: Callable[[int, int], None]
) -> RestoreReport:
    """Measure all that is planned; `update` is told how many cases are done, and of how many."""
    total, done = sum(map(len, plan.groups.values())), 0
    groups: dict[str, list[Restored]] = {}
    with tempfile.TemporaryDirectory(prefix="vrtspike-") as folder:
        run = _random_run(config, Path(folder) / "run")
        for name, cases in plan.groups.items():
            groups[name] = []
            for case in cases:
                update(done, total)
                groups[name].append(_restored(config, case, run, Path(folder) / f"case-{done}"))
                done += 1
    update(done, total)
    return RestoreReport(machine, groups)


def computed_over_frame(
    height: int, width: int, frames: int, tile: int = USUAL_TILE, unit: int = 8
) -> float:
    """Return the pixels that restoring a video computes over those that it has."""
    settings = RestoreSettings()
    windows = settings.windows(frames)
    over = sum(window.stop - window.start for window in windows) / frames
    for length in (height, width):
        parts = spans(length, tile, settings.overlap, multiple=unit)
        over *= sum(stop - start for start, stop in parts) / length
    return over


def _random_run(config: Config, folder: Path) -> Path:
    """Write a run folder with random weights."""
    torch.manual_seed(0)
    weights = {k: v.contiguous() for k, v in build_model(config.model).state_dict().items()}
    (folder / "export").mkdir(parents=True)
    save_file(weights, folder / "export" / "model.safetensors")
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    return folder


def _restored(config: Config, case: RestoreCase, run: Path, folder: Path) -> Restored:
    """Run the command on a clip of a case's size."""
    sizes = Sizes(
        height=case.height,
        width=case.width,
        spike_scale=1,
        frames=CLIP_FRAMES,
        steps=64,
        crop=8,
        bins=config.model.spike.bins,
    )
    write_folder(folder, sizes, [make_clip(sizes, seed=0)])
    clip = folder / SPLIT / sequence_name(0)
    for number in range(CLIP_FRAMES, case.frames):
        for kind, suffix in (("blurred", "png"), ("spike", "dat")):
            first = clip / kind / f"{number % CLIP_FRAMES:06d}.{suffix}"
            os.link(first, clip / kind / f"{number:06d}.{suffix}")
    found = folder / "result.json"
    spikes = [] if config.model.fusion == "none" else ["--spikes", str(clip / "spike")]
    command = [
        *(sys.executable, "-m", "vrtspike", "restore", "--weights", str(run)),
        *("--input", str(clip / "blurred"), *spikes, "--out", str(folder / "out")),
        *("--json", str(found), *case.arguments),
    ]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ended.returncode:
        line = ended.stderr.strip().splitlines()[-1:] or ["no output"]
        raise ResourceError("the command failed", where=" ".join(command), got=line[0])
    facts = json.loads(found.read_text(encoding="utf-8"))
    (result,) = facts["clips"]
    busy_s = result["seconds"] / case.workers
    return Restored(case, facts["seconds"], busy_s, result["memory"], result["tiles"][0])
