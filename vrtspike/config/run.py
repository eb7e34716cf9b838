"""Settings of a run: where it lives and how it starts.

Lengths in time are steps of the spike camera unless a name says frames, seconds or Hz; sizes are
pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from vrtspike.config.roles import PLACE
from vrtspike.config.section import Count, Place, PlainPath, Positive, Section, Seed


class RunSettings(Section):
    """Where a run lives and how it starts."""

    name: Annotated[PlainPath, PLACE] = "run"
    """Folder of the run under `root`; a run of the same name continues where it stopped."""
    root: Annotated[Place, PLACE] = Path("runs")
    """Folder of all runs: a path, which all nodes of a cluster must share, or a URI such as
    s3://bucket/runs."""
    seed: Seed = 0
    """Seed of initialisation, sample order and every random draw."""
    max_failures: Annotated[Count, PLACE] = 3
    """How often failed workers are started again without a new checkpoint in between."""
    cluster_cpus: Annotated[Annotated[float, Field(gt=0)] | None, PLACE] = None
    """CPUs that a cluster which grows by itself can have; null: those that it has now."""
    cluster_gpus: Annotated[Positive | None, PLACE] = None
    """GPUs that a cluster which grows by itself can have; null: those that it has now."""
