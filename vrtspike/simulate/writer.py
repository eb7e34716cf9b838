"""Writing dataset folders so that a sequence is there whole or not at all.

A simulation may be killed at any moment and started again. While it runs the folder holds
`.unfinished.yaml`, the text that becomes `dataset.yaml` when all is written; a sequence is written
beside its place and renamed. So a folder with `dataset.yaml` is complete, and a sequence under its
own name is, and is not made again. A folder that holds anything else is refused.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from vrtspike.data.alignment import Timeline
from vrtspike.data.dat import write_dat
from vrtspike.data.dataset import (
    INFO_FILE,
    DatasetInfo,
    FrameInfo,
    SpikeInfo,
    read_info,
    write_info,
)
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.settings import CameraSettings
from vrtspike.simulate.blur import ExposedFrame

UNFINISHED = ".unfinished.yaml"


def describe(
    *, height: int, width: int, timeline: Timeline, camera: CameraSettings, source: str
) -> DatasetInfo:
    """Return what `dataset.yaml` says of a simulation."""
    if height % camera.downscale or width % camera.downscale:
        raise ConfigError(
            "the frame does not divide into the spike grid",
            got=f"{height}x{width} by camera.downscale {camera.downscale}",
            expected=f"multiples of {camera.downscale}",
        )
    return DatasetInfo(
        spike=SpikeInfo(
            height=height // camera.downscale,
            width=width // camera.downscale,
            rate_hz=camera.rate_hz,
            threshold=camera.threshold,
        ),
        frame=FrameInfo(height=height, width=width),
        steps_per_frame=timeline.steps_per_frame,
        exposure=timeline.exposure,
        target_step=timeline.target_step,
        source=source,
    )


def begin(root: Path, info: DatasetInfo) -> None:
    """Claim a folder for a simulation, or continue the same one; any other content is refused."""
    if root.exists() and not root.is_dir():
        raise DataFormatError("the output must be a folder", where=root, got="a file")
    for name in (INFO_FILE, UNFINISHED):
        if (root / name).is_file():
            if (have := read_info(root / name)) != info:
                raise DataFormatError(
                    "the folder holds another simulation",
                    where=root,
                    got=_difference(have, info),
                    fix="choose another folder, or remove this one",
                )
            return
    if root.exists() and any(root.iterdir()):
        raise DataFormatError(
            "the folder holds something else",
            where=root,
            got=f"{sorted(p.name for p in root.iterdir())[0]} and no {INFO_FILE}",
            fix="choose an empty or new folder",
        )
    root.mkdir(parents=True, exist_ok=True)
    write_info(root / UNFINISHED, info)


def finish(root: Path) -> None:
    """Declare a simulation complete."""
    if (root / UNFINISHED).exists():
        os.replace(root / UNFINISHED, root / INFO_FILE)


def is_written(root: Path, split: str, sequence: str) -> bool:
    """Tell whether a sequence is there, whole."""
    return (root / split / sequence).is_dir()


def write_sequence(
    root: Path, split: str, sequence: str, frames: Iterable[ExposedFrame], info: DatasetInfo
) -> None:
    """Write the frames of a sequence as `000000`, `000001`, ...; what is there already is kept."""
    target = root / split / sequence
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{sequence}."))
    try:
        folder.chmod(0o755)
        for kind in ("blurred", "sharp", "spike"):
            (folder / kind).mkdir()
        for index, frame in enumerate(frames):
            for kind, image in (("blurred", frame.blurred), ("sharp", frame.sharp)):
                path = folder / kind / f"{index:06d}.png"
                Image.fromarray(image).save(path, compress_level=3)
            write_dat(
                folder / "spike" / f"{index:06d}.dat",
                frame.spikes,
                bit_order=info.spike.bit_order,
                flip=info.spike.flip,
            )
        os.rename(folder, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if not target.is_dir():
            raise


def _remove_leftovers(target: Path) -> None:
    """Remove what a killed writer of the same sequence left behind."""
    for leftover in target.parent.glob(f".{target.name}.*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _difference(have: DatasetInfo, want: DatasetInfo) -> str:
    """Name the first entry in which two descriptions differ."""
    for name, value in have.model_dump().items():
        if (other := getattr(want, name)) != getattr(have, name):
            return f"{name} {value} instead of {other}"
    return "the same"
