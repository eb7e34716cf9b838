"""Sweeps made by hand: two seeds, one trial of each fate, and what they must come to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vrtspike.config.config import Config
from vrtspike.config.loader import change, load_config
from vrtspike.runs.metrics_log import Record
from vrtspike.tuning.summary import Summary
from vrtspike.tuning.trial_results import Arm, Trial, TrialResult

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ERROR = "CUDA out of memory, on <b>rank 0</b>\nand so on"
SPACE = {
    "model.spike.heads": {"choice": [1, 2]},
    "train.lr": {"log_uniform": [1e-4, 1e-2]},
}


def config_of(space: Mapping[str, Any], **sweep: Any) -> Config:
    """Return a small configuration with a sweep."""
    base = load_config(CONFIGS / "debug.yaml")
    return change(base, {"run.name": "heads", "sweep": {"space": space, "repeats": 2, **sweep}})


def row(name: str, settings: Mapping[str, Any], seed: int = 0, **figures: Any) -> TrialResult:
    """Return a row; its arm and number follow from its name, it has done all of 10 steps, each of
    6 s and 9 CPU seconds."""
    arm: Arm = "search"
    if name.startswith("baseline"):
        arm = "baseline"
    elif "seed" in name:
        arm = "finalist"
    number = None if arm == "baseline" else int(name.split("-")[1])
    trial = Trial(name, arm, settings, seed, number)
    figures = {"state": "done", "steps": 10, **figures}
    steps = figures["steps"]
    times = {"spent_s": 6.0 * steps, "spent_cpu_s": 9.0 * steps, "share": steps / 10}
    return TrialResult(trial, **times | figures)


def curve(*values: tuple[int, float | None], loss: float = 1.0) -> list[Record]:
    """Return a run's records: validations (step, dB), and a loss at each of these steps."""
    records: list[Record] = [
        {"kind": "val", "step": step, "share": step / 10, "psnr": psnr, "ssim": 0.5}
        for step, psnr in values
    ]
    return records + [{"kind": "train", "step": step, "loss": loss / step} for step, _ in values]


def spikes_sweep() -> Summary:
    """Return a whole sweep: its best is trial-000, with a gain of 1.6 ± sqrt(0.05) dB."""
    config = config_of(SPACE, search="random", trials=4, scheduler="asha", grace=0.4)
    plain, best = {"model.fusion": "none"}, {"model.spike.heads": 2, "train.lr": 2e-3}
    alike = {"train.lr": 2e-3, "model.fusion": "none"}
    costs = {"step_s": 0.5, "memory_gb": 1.0}
    rows = (
        row("baseline-seed0", plain, psnr=26.0, val_psnr=25.0, ssim=0.8, **costs),
        row("baseline-seed1", plain, 1, psnr=26.2, val_psnr=25.2, **costs),
        row("baseline-trial-000-seed0", alike, psnr=26.5, step_s=0.5, memory_gb=1.0),
        row("baseline-trial-000-seed1", alike, 1, psnr=26.7, step_s=0.5, memory_gb=1.0),
        row("trial-000", best, psnr=28.0, val_psnr=27.0, ssim=0.9, step_s=0.7, memory_gb=1.5),
        row(
            "trial-001",
            {"model.spike.heads": 1, "train.lr": 1e-4},
            state="stopped",
            steps=4,
            val_psnr=24.0,
            step_s=0.6,
        ),
        row(
            "trial-002",
            {"model.spike.heads": 2, "train.lr": 1e-2},
            state="failed",
            steps=0,
            error=ERROR,
        ),
        row(
            "trial-003",
            {"model.spike.heads": 1, "train.lr": 5e-4},
            **{"psnr": 27.0, "val_psnr": 26.0, "step_s": 0.6, "memory_gb": 1.25},
        ),
        row("trial-000-seed1", best, 1, psnr=28.4, val_psnr=27.2, step_s=0.8, memory_gb=1.5),
    )
    curves = {
        "baseline-seed0": curve((4, 23.0), (8, None), (10, 25.0)),
        "trial-000": curve((4, 24.5), (10, 27.0)),
        "trial-001": curve((4, 24.0)),
    }
    return Summary(config, rows, curves, len(rows))


def cost_sweep() -> Summary:
    """Return a sweep over cost: the first trial takes 1 s and 2 GB, the cheapest is unequal."""
    config = config_of({"model.spike.chunk_size": {"grid": [None, 8, 16]}}, metric="step_s")
    rows = (
        row("baseline-seed0", {"model.fusion": "none"}, step_s=0.5, memory_gb=1.0),
        row("trial-000", {"model.spike.chunk_size": None}, step_s=1.0, memory_gb=2.0),
        row("trial-001", {"model.spike.chunk_size": 8}, step_s=0.8, memory_gb=1.5),
        row("trial-002", {"model.spike.chunk_size": 16}, step_s=0.6, memory_gb=1.0),
    )
    curves = {
        "trial-000": curve((4, 20.0), (10, 21.0)),
        "trial-001": curve((4, 20.0), (10, 21.0), loss=1.0001),
        "trial-002": curve((4, 20.0), (10, 21.0), loss=1.5),
    }
    return Summary(config, rows, curves, len(rows))
