"""Trained models, as a training run leaves them.

In: a run folder with `config.yaml` and `export/model.safetensors`, on this machine or fetched to it
(`fetched`). Out: the model, in evaluation
mode, with the configuration it was trained with; or a `Restorer`, which also knows how the model
wants its spikes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from vrtspike.config import load_config
from vrtspike.errors import CheckpointError
from vrtspike.model import build_model
from vrtspike.model.weights import load_weights
from vrtspike.run_files import CONFIG, EXPORT, METRICS
from vrtspike.settings import Config
from vrtspike.storage import Folder


@dataclass(frozen=True, eq=False)
class Restorer:
    """A model, and how it wants its spikes: voxel bins (None: no spikes) and normalisation."""

    model: nn.Module
    bins: int | None = None
    voxels: Literal["rate", "log1p"] = "rate"

    @classmethod
    def load(cls, run: Path, device: torch.device | str = "cpu") -> Restorer:
        """Load the exported model of a run folder onto a device."""
        model, config = load_run(run)
        bins = None if config.model.fusion == "none" else config.model.spike.bins
        return cls(model.to(device), bins, config.data.voxels)


@contextmanager
def fetched(run: Folder) -> Iterator[Path]:
    """Give a run folder on this machine: the run's own, or a copy for a while of what is read."""
    names = (CONFIG, EXPORT, METRICS)
    if run.remote and run.size(CONFIG) is None:
        raise CheckpointError(f"the run has no {CONFIG}", where=run, fix="correct the URI")
    with run.local([name for name in names if run.size(name) is not None]) as path:
        yield path


def load_run(run: Path) -> tuple[nn.Module, Config]:
    """Build a run's model with its exported weights; return it with the run's configuration."""
    if not run.is_dir():
        raise CheckpointError(
            "no such run folder",
            where=run,
            got="a file" if run.exists() else None,
            fix="train first, or correct the path",
        )
    for name in (CONFIG, EXPORT):
        if not (run / name).is_file():
            raise CheckpointError(
                f"the run has no {name}",
                where=run,
                expected=f"{CONFIG} and {EXPORT}, which training writes at its end",
                fix="let the run finish: start the same training again and it continues",
            )
    config = load_config(run / CONFIG)
    model = build_model(config.model)
    report = load_weights(model, run / EXPORT)
    if report.missing or report.adapted:
        raise CheckpointError(
            "the exported weights are not those of the exported configuration",
            where=run / EXPORT,
            got=str(report),
            expected="every tensor taken as it is",
        )
    return model.eval(), config
