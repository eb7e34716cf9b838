"""The scene that a spike stream saw, as an animation: the spike average (TFP) moving through time.

In: a `SpikeStream`. Out: a `.gif` or `.mp4` file, gray. Frame i shows the steps
`[i * stride, i * stride + window)`, scaled by the threshold like every picture of a preview; what
is left over at the end of the stream is not shown. Frames are computed, encoded and written one at
a time, so memory does not depend on the stream's length.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import GifImagePlugin, Image

from vrtspike.errors import ConfigError
from vrtspike.report.spikes import Picture, average_image, to_picture, usable_threshold
from vrtspike.spikes.stream import SpikeStream
from vrtspike.storage.atomic import whole_file
from vrtspike.video.write import write_video

GIF_MAX_FPS = 50
"""Browsers slow down GIFs whose frames last less than two hundredths of a second."""


def write_animation(
    stream: SpikeStream,
    path: str | os.PathLike[str],
    *,
    window: int = 32,
    stride: int = 8,
    fps: float = 25.0,
    threshold: float | None = None,
) -> int:
    """Write an animation, whole or not at all, and return its number of frames.

    The threshold is the stream's unless given. A width or height that is odd is continued by one
    pixel in `.mp4`, whose colours are stored for squares of four pixels.
    """
    path = Path(path)
    threshold = usable_threshold(stream, threshold)
    check_animation(path, len(stream), window=window, stride=stride, fps=fps)
    starts = range(0, len(stream) - window + 1, stride)
    frames = (
        to_picture(average_image(stream, start, start + window, threshold)) for start in starts
    )
    if path.suffix.lower() == ".mp4":
        rate = Fraction(fps).limit_denominator(1001)
        return write_video(path, (_colour(frame) for frame in frames), fps=rate)
    with whole_file(path) as temporary:
        _write_gif(temporary, frames, fps)
    return len(starts)


def check_animation(
    path: Path, steps: int, *, window: int = 32, stride: int = 8, fps: float = 25.0
) -> None:
    """Refuse an animation that cannot be made of a stream of so many steps."""
    suffix = path.suffix.lower()
    if suffix not in (".gif", ".mp4"):
        raise ConfigError(
            "the suffix names no animation", where=path, got=suffix or None, expected=".gif or .mp4"
        )
    most = GIF_MAX_FPS if suffix == ".gif" else 1000
    if not (math.isfinite(fps) and 0 < fps <= most):
        raise ConfigError("impossible rate of frames", got=fps, expected=f"more than 0, to {most}")
    if stride < 1 or not 1 <= window <= steps:
        raise ConfigError(
            "no frame can be made of the stream",
            got=f"window {window}, stride {stride}",
            expected=f"a window of 1 to {steps} steps, a stride of 1 or more",
        )


def _write_gif(path: Path, frames: Iterator[Picture], fps: float) -> None:
    """Write a GIF that repeats for ever, frame by frame.

    `Image.save` would keep all frames in memory until the last one is known, so its parts are
    written here. Frames last whole hundredths of a second, of which the sum keeps to `fps`.
    """
    grays = bytes(level for level in range(256) for _ in "rgb")
    shown = 0
    with path.open("wb") as file:
        for number, frame in enumerate(frames, 1):
            image = Image.fromarray(frame)
            image.putpalette(grays)
            if number == 1:
                header, _ = GifImagePlugin.getheader(image.copy(), info={"loop": 0})
                file.writelines(header)
            until = round(100 * number / fps)
            file.writelines(GifImagePlugin.getdata(image, duration=10 * (until - shown)))
            shown = until
        file.write(b";")


def _colour(picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
    """Return a picture in gray colours, its sides continued to even ones, which players prefer."""
    even = np.pad(picture, [(0, side % 2) for side in picture.shape], "edge")
    return np.repeat(even[..., None], 3, axis=-1)
