"""Do a sequence's spikes show what its frames show: the same picture, upright, at the same time?

Every question is answered by comparing spike averages with frames, on the spike grid and in gray:

- orientation: horizontal gradients of the exposure's spike average correlate with those of the
  blurred frame. A wrong bit order is nearly invisible in intensity, but not there.
- exposure: which shift of the exposure window explains the blurred frame best. Consecutive `.dat`
  files are one stream, so windows may reach into the neighbouring frames.
- target: which shift of a short window around the target explains the sharp frame best.
- brightness: threshold x rate over the frame's gray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vrtspike.data.alignment import ShiftFit, fit_shift
from vrtspike.data.dataset import Clip, read_frames, read_spikes
from vrtspike.data.gray import gray_on_grid
from vrtspike.data.reconstruct import tfp

Turn = Literal["as declared", "upside down", "mirrored", "rotated by 180 degrees", "bits swapped"]
Gray = NDArray[np.float32]
TARGET_WINDOW = 8
"""Steps around the target that stand for its instant."""


@dataclass(frozen=True)
class Agreement:
    """How a sequence's spikes agree with its frames."""

    turns: dict[Turn, float]
    """Correlation of horizontal gradients, spikes turned so against the blurred frames."""
    exposure: ShiftFit
    """Blurred frames against the exposure window shifted in time."""
    target: ShiftFit
    """Sharp frames against the target window shifted in time."""
    brightness: float
    """Threshold x rate over gray, mean over all."""


def measure_agreement(clip: Clip, frames: Sequence[int]) -> Agreement:
    """Compare the spikes of some frames of a clip with what the frames show."""
    info = clip.info
    spike, timeline = info.spike, info.timeline
    turns: list[dict[Turn, float]] = []
    exposures, targets, lights = [], [], []
    for index in frames:
        first, last = max(index - 1, 0), min(index + 2, len(clip.frames))
        stream = np.concatenate(read_spikes(clip, first, last))
        start = (index - first) * timeline.steps_per_frame
        blurred, sharp = (
            gray_on_grid(read_frames(clip, kind, index, index + 1)[0], spike.height, spike.width)
            for kind in ("blurred", "sharp")
        )
        window = (start + timeline.exposure[0], start + timeline.exposure[1])
        image = tfp(stream[slice(*window)], threshold=spike.threshold)
        turns.append(_compare_turns(image, blurred, spike.flip))
        lights.append((float(image.mean()), float(blurred.mean())))
        reach = timeline.steps_per_frame // 2
        exposures.append(
            fit_shift(stream, blurred, window=window, threshold=spike.threshold, reach=reach)
        )
        target = _around(start + timeline.target_step, len(stream))
        targets.append(
            fit_shift(stream, sharp, window=target, threshold=spike.threshold, reach=reach)
        )
    fired, shown = np.mean(lights, axis=0)
    return Agreement(
        turns={turn: float(np.mean([t[turn] for t in turns])) for turn in turns[0]},
        exposure=ShiftFit.over(exposures),
        target=ShiftFit.over(targets),
        brightness=float(fired / shown) if shown > 0 else float("nan"),
    )


def _around(instant: int, steps: int) -> tuple[int, int]:
    """Return the steps around an instant, as symmetric as the stream's ends allow."""
    reach = min(TARGET_WINDOW // 2, instant, steps - instant)
    return (instant - reach, instant + reach) if reach else (max(instant - 1, 0), instant or 1)


def _compare_turns(image: Gray, gray: Gray, flip: bool) -> dict[Turn, float]:
    """Correlate the gradients of a frame with those of the spike image, turned in every way."""
    swapped = _swap_bits(image, flip)
    turned: dict[Turn, Gray] = {
        "as declared": image,
        "upside down": image[::-1],
        "mirrored": image[:, ::-1],
        "rotated by 180 degrees": image[::-1, ::-1],
        "bits swapped": swapped,
    }
    return {turn: _gradient_correlation(view, gray) for turn, view in turned.items()}


def _swap_bits(image: Gray, flip: bool) -> Gray:
    """Return the image as the other bit order would read it: pixels reversed in each byte."""
    stored = (image[::-1] if flip else image).ravel()
    whole = len(stored) // 8 * 8
    swapped = stored.copy()
    swapped[:whole] = stored[:whole].reshape(-1, 8)[:, ::-1].ravel()
    result = swapped.reshape(image.shape)
    return result[::-1] if flip else result


def _gradient_correlation(a: Gray, b: Gray) -> float:
    """Return the correlation of horizontal differences, 0 where there are none."""
    x, y = np.diff(a, axis=1).ravel(), np.diff(b, axis=1).ravel()
    x, y = x - x.mean(), y - y.mean()
    power = float(x @ x) * float(y @ y)
    return float(x @ y) / power**0.5 if power > 0 else 0.0
