"""Write a simulated dataset: its description, `dataset.yaml`, and its sequences."""

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
"""Settings of the camera that a description always names; others only if they are not default."""


def camera_facts(camera: CameraSettings) -> dict[str, object]:
    """Return the camera settings for a description, without threshold and rate, its own entries.

    Newer settings are named only if they are not default. So a dataset that was written before
    they existed still has the same description, and its simulation can continue.
    """
    defaults = CameraSettings()
    changed = {
        key for key in CameraSettings.model_fields if getattr(camera, key) != getattr(defaults, key)
    }
    facts = camera.model_dump(mode="json", exclude={"threshold", "rate_hz"})
    return {key: facts[key] for key in facts if key in ALWAYS_SAID or key in changed}


def describe(
    *, height: int, width: int, timeline: Timeline, camera: CameraSettings, source: str
) -> DatasetInfo:
    """Return the content of `dataset.yaml`.

    Raise ConfigError if the frame size is not a multiple of `camera.downscale`.
    """
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
    """Write the frames of a sequence as `000000`, `000001`, ...; keep one that already exists.

    `info` describes this sequence. Where it differs from `dataset`, the description of all
    sequences, the difference is written to the sequence's own file.
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
