"""Data that `vrtspike bench data` measures on: a photograph that moves, and its spikes.

In: sizes and a seed. Out: clips in memory, and the same clips as a dataset folder (PNG and `.dat`)
and as prepared shards, one sample a clip. A photograph, because the cost of decoding a PNG depends
on what it shows; it is repeated in mirror image, not enlarged, so that its detail stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from numpy.typing import NDArray
from PIL import Image

from vrtspike.datasets.info import INFO_FILE, DatasetInfo, FrameInfo, SpikeInfo, write_info
from vrtspike.errors import ConfigError
from vrtspike.samples.shards import (
    MANIFEST,
    VERSION,
    Manifest,
    PrepareSettings,
    SampleRef,
    Shape,
    ShardFile,
    Split,
    digest,
    encode_shard,
    pack_spikes,
)
from vrtspike.simulate.photographs import load_photograph
from vrtspike.spikes.packed_writer import write_dat
from vrtspike.storage.folder import Folder

SPLIT = "train"
PHOTOGRAPH = "astronaut.png"
THRESHOLD = 2.0
SHIFT = (3, 7)
"""Rows and columns by which the view moves from frame to frame."""


@dataclass(frozen=True)
class Sizes:
    """How large clips and samples are, in pixels of the frame."""

    height: int = 720
    width: int = 1280
    spike_scale: int = 2
    """How many times coarser the spike grid is."""
    frames: int = 6
    steps: int = 88
    """Steps of a frame, all of them exposed."""
    crop: int = 192
    bins: int = 32

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"the {name} must be positive", got=value)
        if self.bins > self.steps:
            raise ConfigError(
                "a frame has fewer steps than voxel bins",
                got=f"{self.bins} bins",
                expected=f"at most {self.steps}",
            )
        for name in ("height", "width", "crop"):
            if getattr(self, name) % self.spike_scale:
                raise ConfigError(
                    f"the {name} is not a multiple of the spike grid's coarseness",
                    got=getattr(self, name),
                    expected=f"a multiple of {self.spike_scale}",
                )
        if self.crop > min(self.height, self.width):
            raise ConfigError(
                "the crop is larger than the frame",
                got=self.crop,
                expected=f"at most {min(self.height, self.width)}",
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of the spikes."""
        return self.height // self.spike_scale, self.width // self.spike_scale

    @property
    def info(self) -> DatasetInfo:
        """Return what a dataset of these sizes says of itself."""
        rows, columns = self.grid
        return DatasetInfo(
            spike=SpikeInfo(height=rows, width=columns, rate_hz=1920, threshold=THRESHOLD),
            frame=FrameInfo(height=self.height, width=self.width),
            steps_per_frame=self.steps,
            exposure=(0, self.steps),
            target_step=self.steps // 2,
            source="a moving photograph, made for a benchmark",
        )


@dataclass(frozen=True, eq=False)
class ClipArrays:
    """The frames and spikes of a clip."""

    blurred: UInt8[np.ndarray, "t h w 3"]
    sharp: UInt8[np.ndarray, "t h w 3"]
    spikes: Bool[np.ndarray, "t s hs ws"]


def make_clip(sizes: Sizes, seed: int) -> ClipArrays:
    """Make a clip; seeds differ in where the view starts and in the charge that pixels start with.

    A sharp frame is a view, a blurred one the mean of two, and spikes show the sharp one.
    """
    rng = np.random.default_rng(seed)
    photograph = load_photograph(PHOTOGRAPH)
    rows, columns = (int(v) for v in rng.integers(0, photograph.shape[0], 2))
    views = np.stack(
        [
            _view(photograph, rows + i * SHIFT[0], columns + i * SHIFT[1], sizes)
            for i in range(sizes.frames + 1)
        ]
    )
    sharp, after = views[:-1], views[1:]
    scale = sizes.spike_scale
    rates = sharp[:, ::scale, ::scale].mean(axis=-1, dtype=np.float32) / (255 * THRESHOLD)
    charge = rng.random(sizes.grid, dtype=np.float32)
    spikes = np.empty((sizes.frames, sizes.steps, *sizes.grid), np.bool_)
    for rate, steps in zip(rates, spikes, strict=True):
        for step in steps:
            charge += rate
            np.greater_equal(charge, 1, out=step)
            charge -= step
    return ClipArrays(sharp // 2 + after // 2, sharp, spikes)


def _view(photograph: NDArray[np.uint8], top: int, left: int, sizes: Sizes) -> NDArray[np.uint8]:
    """Cut a view of any size out of a photograph that goes on in mirror image."""
    places = []
    for start, length, size in zip(
        (top, left), (sizes.height, sizes.width), photograph.shape, strict=False
    ):
        place = np.arange(start, start + length) % (2 * size)
        places.append(np.minimum(place, 2 * size - 1 - place))
    return photograph[np.ix_(*places)]


def write_folder(root: Path, sizes: Sizes, clips: Iterable[ClipArrays]) -> None:
    """Write clips as a dataset folder, a sequence each."""
    for number, clip in enumerate(clips):
        sequence = root / SPLIT / sequence_name(number)
        for kind, frames in (("blurred", clip.blurred), ("sharp", clip.sharp)):
            (sequence / kind).mkdir(parents=True)
            for i, frame in enumerate(frames):
                Image.fromarray(frame).save(sequence / kind / f"{i:06d}.png")
        (sequence / "spike").mkdir()
        for i, steps in enumerate(clip.spikes):
            write_dat(sequence / "spike" / f"{i:06d}.dat", steps)
    write_info(root / INFO_FILE, sizes.info)


def write_shards(root: Path, sizes: Sizes, clips: Sequence[ClipArrays], count: int) -> Manifest:
    """Write `count` samples as prepared shards, a file each; they are the clips in turns."""
    cells = [
        {
            "blurred": clip.blurred.tobytes(),
            "sharp": clip.sharp.tobytes(),
            "spikes": pack_spikes(clip.spikes).tobytes(),
        }
        for clip in clips[:count]
    ]
    folder, files, samples = Folder.at(root), [], []
    for number in range(count):
        name = sequence_name(number)
        row: dict[str, Any] = {"sample": f"{name}/000000", "sequence": name, "start": 0}
        content = encode_shard([row | cells[number % len(cells)]])
        file = f"{SPLIT}/{number:05d}.parquet"
        folder.write(file, content)
        checksum = hashlib.sha256(content).hexdigest()
        files.append(
            ShardFile(
                file=file,
                rows=1,
                bytes=len(content),
                sha256=checksum,
                timeline=sizes.info.timeline,
                threshold=THRESHOLD,
            )
        )
        samples.append(SampleRef(id=row["sample"], shard=number, row=0))
    manifest = _manifest(sizes, tuple(files), tuple(samples))
    folder.write(MANIFEST, manifest.model_dump_json().encode())
    return manifest


def sequence_name(number: int) -> str:
    """Return the sequence of a sample."""
    return f"{number:05d}"


def _manifest(
    sizes: Sizes, files: tuple[ShardFile, ...], samples: tuple[SampleRef, ...]
) -> Manifest:
    """Put together what was written."""
    (rows, columns), info = sizes.grid, sizes.info
    shape = Shape(t=sizes.frames, h=sizes.height, w=sizes.width, hs=rows, ws=columns)
    content = digest([info.model_dump(mode="json"), [file.sha256 for file in files]])
    return Manifest(
        version=VERSION,
        source=info.source,
        settings=PrepareSettings(
            layout="vrtspike",
            frames=sizes.frames,
            stride=sizes.frames,
            tile=None,
            shard_samples=1,
            splits=(SPLIT,),
        ),
        inputs=content,
        fingerprint=content,
        info=info,
        splits={SPLIT: Split(shape=shape, shards=files, samples=samples)},
        refused=(),
    )
