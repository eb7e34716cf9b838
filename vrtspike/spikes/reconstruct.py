"""Reconstruct images from spikes alone, without training: TFP and TFI.

In: spikes `(s, h, w)` and the threshold at which the camera fires. Out: float32 `(h, w)`, intensity
in units of full brightness, not clipped. Times follow `vrtspike.spikes.timeline`.

TFP (texture from playback): threshold * mean of the spikes in a window.
TFI (texture from inter-spike intervals): threshold / length of the interval around an instant.
Both are from Zhu et al., "A Retina-inspired Sampling Method for Visual Texture Reconstruction",
ICME 2019.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

from vrtspike.errors import ConfigError


def tfp(
    spikes: Shaped[np.ndarray, "s h w"],
    *,
    threshold: float,
    center: int | None = None,
    window: int | None = None,
) -> Float[np.ndarray, "h w"]:
    """Average the spikes of `[center - window // 2, center - window // 2 + window)`.

    `window`: length in steps (default: the whole stream). `center`: a step (default: the middle of
    the stream). At an edge, the mean is over the part of the window inside the stream. Raises
    ConfigError if the whole window is outside.
    """
    if window is None:
        if center is not None:
            raise ConfigError("a centre without a window says nothing", got=f"center {center}")
        start, stop = 0, len(spikes)
    else:
        start = (len(spikes) // 2 if center is None else center) - window // 2
        start, stop = max(start, 0), min(start + window, len(spikes))
    if start >= stop:
        raise ConfigError(
            "the window holds no step of the stream",
            got=f"center {center}, window {window}",
            expected=f"an overlap with [0, {len(spikes)})",
        )
    total = spikes[start:stop].sum(axis=0, dtype=np.int32)
    return np.asarray(total.astype(np.float32) * np.float32(threshold / (stop - start)))


def tfi(
    spikes: Shaped[np.ndarray, "s h w"], *, step: int, threshold: float
) -> Float[np.ndarray, "h w"]:
    """Return threshold / interval between the last spike before the instant `step` and the next.

    A pixel fires at the end of a step, so the interval between spikes at a < step <= b is b - a
    steps of light. If one of the two spikes is missing, the edge of the stream replaces it, because
    the interval is at least that long. A pixel without any spike is 0. Raises ConfigError if `step`
    is outside the stream.
    """
    if not 0 <= step <= len(spikes):
        raise ConfigError("the step leaves the stream", got=step, expected=f"0 to {len(spikes)}")
    fired = spikes.astype(np.bool_, copy=False)
    elapsed = np.full(spikes.shape[1:], step, np.int32)
    remaining = np.full(spikes.shape[1:], len(spikes) - step, np.int32)
    # From far to near, so that the nearest spike is written last.
    for number in range(step):
        np.copyto(elapsed, step - 1 - number, where=fired[number])
    for number in range(len(spikes) - 1, step - 1, -1):
        np.copyto(remaining, number + 1 - step, where=fired[number])
    intensity = np.float32(threshold) / np.maximum(elapsed + remaining, 1).astype(np.float32)
    return np.where(fired.any(axis=0), intensity, np.float32(0.0))
