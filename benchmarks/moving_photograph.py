"""A clip to measure on: a photograph that moves, and its spikes, as a dataset folder.

A photograph, because the cost of decoding a PNG depends on what it shows; it goes on in mirror
image, not enlarged, so that its detail stays. More frames and more clips are hard links to the
first ones.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from vrtspike.datasets.info import INFO_FILE, DatasetInfo, FrameInfo, SpikeInfo, write_info
from vrtspike.simulate.photographs import load_photograph
from vrtspike.spikes.packed_writer import write_dat

SPLIT = "train"
THRESHOLD = 2.0
SHIFT = (3, 7)
"""Rows and columns by which the view moves from frame to frame."""


def write_clip(
    root: Path, *, height: int, width: int, frames: int, steps: int, spike_scale: int = 1
) -> Path:
    """Write a dataset of one clip; return the clip's folder."""
    photograph = load_photograph("astronaut.png")
    rows, columns = height // spike_scale, width // spike_scale
    pad = [
        (0, max(0, size - n)) for size, n in zip((height, width), photograph.shape, strict=False)
    ]
    scene = np.pad(photograph, (*pad, (0, 0)), mode="symmetric")
    views = [
        np.roll(scene, (-i * SHIFT[0], -i * SHIFT[1]), (0, 1))[:height, :width]
        for i in range(frames + 1)
    ]
    clip = root / SPLIT / "00000"
    for kind in ("blurred", "sharp", "spike"):
        (clip / kind).mkdir(parents=True)
    charge = np.random.default_rng(0).random((rows, columns), dtype=np.float32)
    for i in range(frames):
        Image.fromarray(views[i]).save(clip / "sharp" / f"{i:06d}.png")
        blurred = views[i] // 2 + views[i + 1] // 2
        Image.fromarray(blurred).save(clip / "blurred" / f"{i:06d}.png")
        rate = views[i][::spike_scale, ::spike_scale].mean(axis=-1, dtype=np.float32)
        spikes = np.empty((steps, rows, columns), np.bool_)
        for step in spikes:
            charge += rate / (255 * THRESHOLD)
            np.greater_equal(charge, 1, out=step)
            charge -= step
        write_dat(clip / "spike" / f"{i:06d}.dat", spikes)
    info = DatasetInfo(
        spike=SpikeInfo(height=rows, width=columns, rate_hz=1920, threshold=THRESHOLD),
        frame=FrameInfo(height=height, width=width),
        steps_per_frame=steps,
        exposure=(0, steps),
        target_step=steps // 2,
        source="a moving photograph, made for a benchmark",
    )
    write_info(root / INFO_FILE, info)
    return clip


def lengthen(clip: Path, frames: int) -> None:
    """Repeat the frames of a clip until there are so many."""
    for folder in clip.iterdir():
        files = sorted(folder.iterdir())
        for number in range(len(files), frames):
            first = files[number % len(files)]
            os.link(first, folder / f"{number:06d}{first.suffix}")


def copy_clip(clip: Path, copies: int) -> None:
    """Put copies of a clip beside it, until there are so many."""
    for number in range(1, copies):
        for file in clip.rglob("*.*"):
            copy = clip.with_name(f"{number:05d}") / file.relative_to(clip)
            copy.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, copy)
