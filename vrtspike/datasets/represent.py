"""What a model sees of the spikes of a clip's frames, read as they are needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from vrtspike.datasets.clip import Clip, read_spikes
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.spikes.timeline import Timeline

Look = Callable[[Clip, int], tuple[Bool[np.ndarray, "s h w"], float]]
"""Return the spikes of a frame of a clip, and the threshold of the camera that gave them."""


def own_spikes(clip: Clip, index: int) -> tuple[Bool[np.ndarray, "s h w"], float]:
    """Read the spikes of a frame, with their camera's threshold."""
    return read_spikes(clip, index, index + 1)[0], clip.info.camera.threshold


def represent_frames(
    clip: Clip,
    start: int,
    stop: int,
    represent: SpikeRepresentation,
    look: Look = own_spikes,
    timeline: Timeline | None = None,
) -> Float[np.ndarray, "n c h w"]:
    """Represent the spikes of the frames [start, stop) of a clip.

    `timeline` sets another target instant than the clip's own. The spikes of a frame and of the
    neighbours that its windows reach into are in memory at a time.
    """
    info, frames = clip.info, []
    timeline = timeline or info.timeline
    reach = represent.reach(timeline) if info.continuous else 0
    held: dict[int, tuple[NDArray[np.bool_], float]] = {}
    for index in range(start, stop):
        near = range(max(index - reach, 0), min(index + reach + 1, len(clip.frames)))
        held = {i: held[i] if i in held else look(clip, i) for i in near}
        place = index - near.start
        frames.append(
            represent(
                np.stack([spikes for spikes, _ in held.values()]),
                timeline,
                held[index][1],
                frames=slice(place, place + 1),
                continuous=info.continuous,
            )
        )
    return np.concatenate(frames)
