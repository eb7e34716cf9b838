"""Footage in other forms than a dataset's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tests.video.video_files import encode

STEPS, EXPOSED = 64, 56
CAMERA = {
    "spike": {"height": 40, "width": 48, "threshold": 2.0, "rate_hz": 1000.0},
    "steps_per_frame": STEPS,
    "exposure": [0, EXPOSED],
    "target_step": 28,
}
"""The camera of a photograph that moves, as options describe it."""


def stream_of(sequence: Path, target: Path) -> Path:
    """Join the spikes of a sequence into one stream."""
    target.parent.mkdir(parents=True, exist_ok=True)
    files = sorted((sequence / "spike").iterdir())
    target.write_bytes(b"".join(file.read_bytes() for file in files))
    return target


def film(frames: NDArray[Any], path: Path) -> Path:
    """Write a video that holds exactly these frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return encode(path, list(frames), "ffv1", pix_fmt="bgr0")
