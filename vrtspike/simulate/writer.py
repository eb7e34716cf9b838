"""Writing what was simulated: the description of a dataset, and its sequences."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from vrtspike.config.camera import CameraSettings
from vrtspike.datasets.info import SEQUENCE_FILE, DatasetInfo, FrameInfo, SpikeInfo, write_changes
from vrtspike.datasets.writer import new_sequence
from vrtspike.errors import ConfigError
from vrtspike.simulate.blur import ExposedFrame
from vrtspike.spikes.packed_writer import write_dat
from vrtspike.spikes.timeline import Timeline

ALWAYS_SAID = frozenset({"downscale", "noise", "dark_rate"})
"""Settings of the camera that a description names even at their defaults."""


def camera_facts(camera: CameraSettings) -> dict[str, object]:
    """Return what a description says of the camera beside its own entries (threshold and rate).

    Settings younger than `ALWAYS_SAID` are named only where they are set, so that a dataset written
    before they existed is still the same simulation and continues.
    """
    changed = camera.model_dump(exclude_defaults=True)
    said = camera.model_dump(mode="json", exclude={"threshold", "rate_hz"})
    return {key: said[key] for key in said if key in ALWAYS_SAID or key in changed}


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
            color=camera.color,
            light=camera.light,
        ),
        frame=FrameInfo(height=height, width=width),
        steps_per_frame=timeline.steps_per_frame,
        exposure=timeline.exposure,
        target_step=timeline.target_step,
        source=source,
    )


def write_sequence(
    root: Path,
    split: str,
    sequence: str,
    frames: Iterable[ExposedFrame],
    info: DatasetInfo,
    dataset: DatasetInfo | None = None,
) -> None:
    """Write the frames of a sequence as `000000`, `000001`, ...; what is there already is kept.

    Where `dataset`, what is said of all sequences, is not what holds of this one, it says so.
    """
    with new_sequence(root, split, sequence) as folder:
        write_changes(folder / SEQUENCE_FILE, info, dataset or info)
        for kind in ("blurred", "sharp", "spike"):
            (folder / kind).mkdir()
        for index, frame in enumerate(frames):
            for kind, image in (("blurred", frame.blurred), ("sharp", frame.sharp)):
                path = folder / kind / f"{index:06d}.png"
                Image.fromarray(image).save(path, compress_level=3)
            write_dat(
                folder / "spike" / f"{index:06d}.dat",
                frame.spikes,
                bit_order=info.camera.bit_order,
                flip=info.camera.flip,
            )
