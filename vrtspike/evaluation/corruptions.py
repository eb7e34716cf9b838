"""Corrupted spikes, to test how a model reacts to a worse camera than in training.

In: spikes `(s, h, w)` of one frame and a random generator. Out: spikes of the same shape; the input
is not changed.

    threshold   every n-th spike only: a camera with n times the threshold
    time        the steps `offset` later in the stream (earlier, if negative)
    space       the grid moved down and right, its edge repeated
    dropped     each spike lost with a probability, independently
    noise       each pixel fires at random in each step with a probability
    silent      no spikes

The random numbers depend on the frame and the corruption only (`generator`). So a frame that two
clips share has the same spikes in both. Training can draw some of these, too
(`vrtspike.spikes.transform`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool

from vrtspike.spikes.transform import add_noise, lose_spikes, raise_threshold

Kind = Literal["threshold", "time", "space", "dropped", "noise", "silent"]
KINDS: tuple[Kind, ...] = ("threshold", "time", "space", "dropped", "noise", "silent")

Spikes = Bool[np.ndarray, "s h w"]
Around = Bool[np.ndarray, "n h w"]
"""Spikes of a frame and of some steps before and after it."""


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption at one level: a factor, steps, pixels, or a probability."""

    kind: Kind
    level: float

    @property
    def threshold_factor(self) -> float:
        """Return the factor of the camera's threshold, which its user knows."""
        return self.level if self.kind == "threshold" else 1.0

    @property
    def reach(self) -> int:
        """Return how many steps before and after the frame are needed."""
        return abs(int(self.level)) if self.kind == "time" else 0

    def apply(self, around: Around, start: int, steps: int, rng: np.random.Generator) -> Spikes:
        """Return the corrupted spikes of a frame.

        The frame's own spikes are `around[start : start + steps]`. `around` also contains up to
        `reach` steps before and after them, as far as the stream has any.
        """
        frame = around[start : start + steps]
        match self.kind:
            case "threshold":
                kept: Spikes = raise_threshold(frame[None], int(self.level), rng)[0]
                return kept
            case "time":
                return shift_in_time(around, start, steps, int(self.level))
            case "space":
                return shift_in_space(frame, int(self.level))
            case "dropped":
                return lose_spikes(frame, self.level, rng)
            case "noise":
                return add_noise(frame, self.level, rng)
            case "silent":
                return np.zeros_like(frame) if self.level else frame


def levels_of(kind: Kind) -> tuple[float, ...]:
    """Return the levels to test, ascending; they include the level that changes nothing."""
    match kind:
        case "threshold":
            return (1.0, 2.0, 4.0)
        case "time":
            return (-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0)
        case "space":
            return (0.0, 1.0, 2.0, 4.0, 8.0)
        case "dropped":
            return (0.0, 0.05, 0.1, 0.2, 0.5)
        case "noise":
            return (0.0, 0.005, 0.02, 0.05, 0.1)
        case "silent":
            return (0.0, 1.0)


def undisturbed(kind: Kind) -> float:
    """Return the level that changes nothing."""
    return 1.0 if kind == "threshold" else 0.0


def generator(seed: int, sequence: str, frame: str, corruption: Corruption) -> np.random.Generator:
    """Return the random generator of one frame and corruption; it depends on the arguments only."""
    name = "\0".join((str(seed), sequence, frame, corruption.kind, f"{corruption.level:g}"))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()))


def shift_in_time(around: Around, start: int, steps: int, offset: int) -> Spikes:
    """Return the `steps` steps from `start + offset` on; outside the stream, mirror its ends.

    The mirror repeats the last step: ... b a | a b ... y z | z y ...
    """
    first, last = start + offset, start + offset + steps
    before, after = max(-first, 0), max(last - len(around), 0)
    mirrored = np.pad(around, ((before, after), (0, 0), (0, 0)), mode="symmetric")
    return mirrored[first + before : last + before]


def shift_in_space(spikes: Spikes, pixels: int) -> Spikes:
    """Move the spikes down and right by `pixels` of their grid; repeat the edge."""
    _, height, width = spikes.shape
    rows, columns = (np.maximum(np.arange(side) - pixels, 0) for side in (height, width))
    return spikes[:, rows[:, None], columns]
