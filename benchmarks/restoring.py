"""What `vrtspike restore` takes: memory by length and by bound, speed by workers and by size.

    python benchmarks/restoring.py --config configs/demo.yaml

Each row is the command itself, in a process of its own, on a clip made for it: a photograph that
moves, repeated to its length. Weights are random, which costs the same. Peaks are the kernel's, of
the whole process, Python and its libraries included; with several workers of the largest one. A
worker has a GPU of its own where there are some, and one thread where workers are compared on CPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from figures import Row, show
from moving_photograph import lengthen, write_clip
from vrtspike.config.config import Config
from vrtspike.config.loader import dump_config, load_config
from vrtspike.errors import ResourceError
from vrtspike.model import build_model
from vrtspike.restoration.memory import parse_bytes

CLIP_FRAMES = 12
"""Frames that are made; longer clips repeat them."""


@dataclass(frozen=True)
class Case:
    """One run of the command, and the options in which it differs."""

    varied: str
    height: int
    width: int
    frames: int
    options: dict[str, str | int]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what `vrtspike restore` takes.")
    parser.add_argument("--config", required=True, help="configuration (YAML)")
    parser.add_argument("overrides", nargs="*", help="settings such as model.patch=2")
    parser.add_argument("--frames", type=int, nargs="*", default=[100, 1000], help="lengths")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--memory", nargs="*", default=["1.5GB", "2GB", "3GB"], help="bounds")
    parser.add_argument("--size", type=int, nargs=2, help="rows, columns: seconds a frame of it")
    parser.add_argument("--tiny", action="store_true", help="only try whether it works")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    given = parser.parse_intermixed_args()
    config = load_config(given.config, given.overrides)
    small, large = ((32, 32), (160, 200)) if given.tiny else ((96, 96), (272, 640))
    threads: dict[str, str | int] = {} if torch.cuda.is_available() else {"threads": 1}
    sizes: list[tuple[int, int]] = [tuple(given.size)] if given.size else []
    worker_frames = 6 if given.tiny else 500
    cases = [
        *(Case("length", *small, frames, {}) for frames in given.frames),
        *(Case("workers", *small, worker_frames, {"workers": n, **threads}) for n in given.workers),
        *(Case("bound", *large, CLIP_FRAMES, {"memory": bound}) for bound in given.memory),
        *(Case("size", *size, 4 * CLIP_FRAMES, {}) for size in sizes),
    ]
    with tempfile.TemporaryDirectory(prefix="vrtspike-bench-") as folder:
        weights = random_run(config, Path(folder) / "run")
        rows = [
            restore(config, weights, case, Path(folder) / str(i)) for i, case in enumerate(cases)
        ]
    show({"restoring": rows}, given.json)


def random_run(config: Config, folder: Path) -> Path:
    """Write a run folder with random weights."""
    torch.manual_seed(0)
    weights = {k: v.contiguous() for k, v in build_model(config.model).state_dict().items()}
    (folder / "export").mkdir(parents=True)
    save_file(weights, folder / "export" / "model.safetensors")
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    return folder


def restore(config: Config, weights: Path, case: Case, folder: Path) -> Row:
    """Run the command on a clip of a case's size."""
    clip = write_clip(
        folder, height=case.height, width=case.width, frames=min(case.frames, CLIP_FRAMES), steps=64
    )
    lengthen(clip, case.frames)
    spikes = [] if config.model.fusion == "none" else ["--spikes", str(clip / "spike")]
    options = [text for name, value in case.options.items() for text in (f"--{name}", str(value))]
    found = run(
        *(sys.executable, "-m", "vrtspike", "restore", "--weights", str(weights)),
        *("--input", str(clip / "blurred"), *spikes, "--out", str(folder / "out")),
        *("--json", str(folder / "result.json"), *options),
        result=folder / "result.json",
    )
    (restored,) = found["clips"]
    workers, bound = int(case.options.get("workers", 1)), case.options.get("memory")
    return {
        "varied": case.varied,
        "size": f"{case.height}x{case.width}",
        "frames": case.frames,
        "workers": workers,
        "tile": restored["tiles"][0] or "whole",
        "peak MB": restored["memory"] / 1e6,
        "bound": bound,
        "of the bound": None if bound is None else restored["memory"] / parse_bytes(str(bound)),
        "frames/s": case.frames / found["seconds"],
        "without starts": case.frames * workers / restored["seconds"],
    }


def run(*command: str, result: Path) -> dict[str, Any]:
    """Run a command; return what it wrote as JSON."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ended.returncode:
        line = ended.stderr.strip().splitlines()[-1:] or ["no output"]
        raise ResourceError("the command failed", where=" ".join(command), got=line[0])
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    main()
