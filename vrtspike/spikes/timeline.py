"""The common clock of frames and spikes, and a test of how well a recording keeps to it.

Convention, everywhere in vrtspike: time is counted in steps of the spike camera, from the first
step that belongs to a frame. Step `s` integrates the light of `[s, s + 1)`; a simulator samples it
at the instant `s + 0.5`. Intervals are half-open, `[s0, s1)`. The sharp frame shows the instant
`target_step`, the border between steps `target_step - 1` and `target_step`. So the middle of an
exposure `[s0, s1)` is exactly `target_step = (s0 + s1) / 2`, and the window of `2 n` steps centred
on the target is `[target_step - n, target_step + n)`.

Frames start `steps_per_frame` steps apart. The steps after the exposure are dead time of the frame
camera; the spike camera continues to fire.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float

from vrtspike.errors import ConfigError


@dataclass(frozen=True)
class Timeline:
    """The steps of one frame: how many, and where the exposure and the target instant are."""

    steps_per_frame: int
    exposure: tuple[int, int]
    target_step: int

    def __post_init__(self) -> None:
        start, stop = self.exposure
        if not 0 <= start < stop <= self.steps_per_frame:
            raise ConfigError(
                "the exposure is empty or leaves the steps of its frame",
                got=f"[{start}, {stop})",
                expected=f"0 <= start < stop <= {self.steps_per_frame} (steps_per_frame)",
                fix="state the exposure as half-open steps counted from the frame's first step",
            )
        if not start <= self.target_step <= stop:
            raise ConfigError(
                "the target step lies outside the exposure",
                got=self.target_step,
                expected=f"{start} to {stop}",
            )

    @property
    def exposure_steps(self) -> int:
        """Return the length of the exposure in steps."""
        return self.exposure[1] - self.exposure[0]

    def spread(self, count: int) -> tuple[Timeline, ...]:
        """Return one timeline for each of `count` target instants; for one, this timeline.

        The instants are centred on the middle of the exposure and `steps_per_frame / count` apart,
        so that the instants of all frames are evenly spaced. If the exposure is too short for that,
        they extend from its start to its end. Each instant is rounded down to a whole step. Raises
        ConfigError if the exposure has fewer instants.
        """
        start, stop = self.exposure
        most = min(self.exposure_steps + 1, self.steps_per_frame)
        if not 1 <= count <= most:
            raise ConfigError(
                "so many instants are not in an exposure",
                got=f"{count} instants of {self.exposure_steps} steps",
                expected=f"1 to {most}",
            )
        if count == 1:
            return (self,)
        apart = min(Fraction(self.steps_per_frame, count), Fraction(self.exposure_steps, count - 1))
        first = Fraction(start + stop, 2) - apart * Fraction(count - 1, 2)
        return tuple(
            replace(self, target_step=math.floor(first + number * apart)) for number in range(count)
        )

    def reversed(self) -> Timeline:
        """Return the timeline of the frame with its steps in reverse order."""
        start, stop = (self.steps_per_frame - edge for edge in reversed(self.exposure))
        return Timeline(
            self.steps_per_frame, (start, stop), self.steps_per_frame - self.target_step
        )


@dataclass(frozen=True)
class ShiftFit:
    """How well shifted windows of a stream match an image: the error of each shift, in steps."""

    shifts: tuple[int, ...]
    errors: tuple[float, ...]

    @property
    def best(self) -> int:
        """Return the shift with the smallest error."""
        return self.shifts[int(np.argmin(self.errors))]

    @property
    def gain(self) -> float:
        """Return by which fraction the smallest error is below the error at shift 0."""
        at_zero = self.errors[self.shifts.index(0)]
        return 1.0 - min(self.errors) / at_zero if at_zero > 0 else 0.0

    @classmethod
    def over(cls, fits: Sequence[ShiftFit]) -> ShiftFit:
        """Combine the fits of several frames (root mean square), over their common shifts."""
        shifts = sorted(set.intersection(*(set(fit.shifts) for fit in fits)))
        table = np.array([[fit.errors[fit.shifts.index(s)] for s in shifts] for fit in fits])
        return cls(tuple(shifts), tuple(np.sqrt(np.mean(table**2, axis=0)).tolist()))


def fit_shift(
    spikes: Bool[np.ndarray, "s h w"],
    gray: Float[np.ndarray, "h w"],
    *,
    window: tuple[int, int],
    threshold: float,
    reach: int,
) -> ShiftFit:
    """Compare an image with the mean of the spikes in `window`, shifted by up to `reach` steps.

    Shifts that would leave the stream are skipped. Errors are root mean square differences after
    the best gain and offset of brightness, so that a wrong threshold does not matter.
    """
    start, stop = window
    if start < 0 or stop > len(spikes):
        raise ConfigError(
            "the window leaves the stream", got=f"[{start}, {stop})", expected=f"0 to {len(spikes)}"
        )
    shifts = range(max(-reach, -start), min(reach, len(spikes) - stop) + 1)
    first, last = start + shifts[0], stop + shifts[-1]
    total = np.zeros((last - first + 1, *gray.shape), np.uint16 if last - first < 65536 else int)
    np.cumsum(spikes[first:last], axis=0, out=total[1:])
    target = gray.ravel() - gray.mean()
    errors = []
    for shift in shifts:
        a, b = start + shift - first, stop + shift - first
        mean = (total[b] - total[a]).ravel() * np.float32(threshold / (stop - start))
        mean -= mean.mean()
        power = float(mean @ mean)
        gain = float(mean @ target) / power if power > 0 else 0.0
        errors.append(float(np.sqrt(np.mean((target - gain * mean) ** 2))))
    return ShiftFit(tuple(shifts), tuple(errors))
