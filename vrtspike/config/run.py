"""Settings of a run: its folder, its seed, and the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from vrtspike.config.roles import PLACE
from vrtspike.config.section import Count, Place, PlainPath, Positive, Section, Seed


class RunSettings(Section):
    """Folder and seed of a run, and limits of the cluster."""

    name: Annotated[PlainPath, PLACE] = "run"
    """Folder of the run under `root`. A run with an existing name continues from its last
    checkpoint."""
    root: Annotated[Place, PLACE] = Path("runs")
    """Folder of all runs: a path that all nodes of a cluster share, or a URI such as
    s3://bucket/runs."""
    seed: Seed = 0
    """Seed of the initial weights, the order of samples and all random draws."""
    max_failures: Annotated[Count, PLACE] = 3
    """How many times in a row failed workers are restarted without a new checkpoint between."""
    cluster_cpus: Annotated[Annotated[float, Field(gt=0)] | None, PLACE] = None
    """Greatest number of CPUs of an autoscaling cluster; null: the present number."""
    cluster_gpus: Annotated[Positive | None, PLACE] = None
    """Greatest number of GPUs of an autoscaling cluster; null: the present number."""
