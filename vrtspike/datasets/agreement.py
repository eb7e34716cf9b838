"""Do a sequence's spikes show what its frames show: the same picture, upright, at the same time?

Every question is answered by comparing spike averages with frames, on the spike grid and in gray:

- orientation: horizontal gradients of the exposure's spike average correlate with those of the
  blurred frame. A wrong bit order is nearly invisible in intensity, but not there. The stream is
  turned on the sensor, before it is registered to the frames; flips also after it.
- exposure: which shift of the exposure window explains the blurred frame best. Consecutive `.dat`
  files are one stream, so windows may reach into the neighbouring frames.
- target: which shift of a short window around the target explains the sharp frame best.
- brightness: threshold x rate over the frame's gray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8
from numpy.typing import NDArray

from vrtspike.datasets.clip import Clip, read_frames, read_spikes, read_spikes_around
from vrtspike.datasets.info import DatasetInfo
from vrtspike.spikes.gray import gray_on_grid
from vrtspike.spikes.optics import Optics
from vrtspike.spikes.reconstruct import tfp
from vrtspike.spikes.timeline import ShiftFit, fit_shift

Turn = Literal["as declared", "upside down", "mirrored", "rotated by 180 degrees", "bits swapped"]
Gray = NDArray[np.float32]
Spikes = Bool[np.ndarray, "s h w"]
FLIPS: dict[Turn, tuple[EllipsisType | slice, ...]] = {
    "upside down": np.s_[..., ::-1, :],
    "mirrored": np.s_[..., ::-1],
    "rotated by 180 degrees": np.s_[..., ::-1, ::-1],
}
TARGET_WINDOW = 16
"""Steps around the target that stand for its instant."""
CHANCE = 5.0
"""Standard deviations of the counting noise beyond which a smaller error is no chance."""
NOISE_MARGIN = 1.05
"""Squared error over the counting noise up to which there is nothing that a shift could remove."""


@dataclass(frozen=True)
class Agreement:
    """How a sequence's spikes agree with its frames."""

    turns: dict[Turn, float]
    """Correlation of horizontal gradients, spikes turned so against the blurred frames."""
    exposure: ShiftFit
    """Blurred frames against the exposure window shifted in time."""
    target: ShiftFit
    """Sharp frames against the target window shifted in time."""
    exposure_chance: float
    """Share of the error that a shift of the exposure can remove by chance."""
    target_chance: float
    """Share of the error that a shift of the target can remove by chance."""
    brightness: float
    """Threshold x rate over gray, mean over all."""
    spikes_off: float
    """Spikes of a pixel and exposure that this ratio stands for, more or less than expected."""
    expected: float
    """Correlation of the declared turn that is left by the noise of counting spikes."""

    def facts(self) -> dict[str, float | int | str]:
        """Return the numbers as plain values."""
        turn = max(self.turns, key=lambda name: self.turns[name])
        return {
            "best_turn": turn,
            "best_turn_correlation": round(self.turns[turn], 4),
            "declared_turn_correlation": round(self.turns["as declared"], 4),
            "expected_correlation": round(self.expected, 4),
            "exposure_best_offset_steps": self.exposure.best,
            "exposure_error_removed": round(self.exposure.gain, 4),
            "target_best_offset_steps": self.target.best,
            "target_error_removed": round(self.target.gain, 4),
            "brightness_ratio": round(self.brightness, 4),
        }


def measure_agreement(clip: Clip, frames: Sequence[int]) -> Agreement:
    """Compare the spikes of some frames of a clip with what the frames show."""
    spike, timeline = clip.info.camera, clip.info.timeline
    reach = timeline.steps_per_frame // 2
    turns: list[dict[Turn, float]] = []
    exposures, targets, lights, expected, noises = [], [], [], [], []
    for index in frames:
        stream, start = read_spikes_around(clip, index, reach)
        blurred, sharp = (
            _as_the_camera_sees(read_frames(clip, kind, index, index + 1)[0], clip.info)
            for kind in ("blurred", "sharp")
        )
        window = (start + timeline.exposure[0], start + timeline.exposure[1])
        image = tfp(stream[slice(*window)], threshold=spike.threshold)
        images = _turned_images(clip, index, image)
        turns.append(
            {
                turn: max(_gradient_correlation(image, blurred) for image in found)
                for turn, found in images.items()
            }
        )
        lights.append((float(image.mean()), float(blurred.mean())))
        quantum = spike.threshold / timeline.exposure_steps
        expected.append(_expected_correlation(blurred, quantum))
        exposures.append(
            fit_shift(stream, blurred, window=window, threshold=spike.threshold, reach=reach)
        )
        instant = _around(start + timeline.target_step, len(stream))
        targets.append(
            fit_shift(stream, sharp, window=instant, threshold=spike.threshold, reach=reach)
        )
        short = spike.threshold / (instant[1] - instant[0])
        noises.append((_floor(blurred, quantum), _floor(sharp, short)))
    fired, shown = np.mean(lights, axis=0)
    (exposure, exposure_frames), (target, target_frames) = map(_combined, (exposures, targets))
    pixels = spike.grid[0] * spike.grid[1]
    noise = np.mean(noises, axis=0).tolist()
    return Agreement(
        turns={turn: float(np.mean([t[turn] for t in turns])) for turn in turns[0]},
        exposure=exposure,
        target=target,
        exposure_chance=_chance(exposure, noise[0], exposure_frames * pixels),
        target_chance=_chance(target, noise[1], target_frames * pixels),
        brightness=float(fired / shown) if shown > 0 else 1.0,
        spikes_off=abs(float(fired - shown)) * timeline.exposure_steps / spike.threshold,
        expected=float(np.mean(expected)),
    )


def _as_the_camera_sees(rgb: UInt8[np.ndarray, "h w 3"], info: DatasetInfo) -> Gray:
    """Return what the spike camera's pixels integrate of a frame."""
    spike, scale = info.camera, info.spike_scale
    if scale is None or (spike.color, spike.light) == ("gray", "gamma"):
        return gray_on_grid(rgb, *spike.grid)
    optics = Optics(spike.color, spike.light, downscale=scale)
    return np.asarray(optics.at_pixels(rgb[None].astype(np.float32) / 255)[0], np.float32)


def _combined(fits: Sequence[ShiftFit]) -> tuple[ShiftFit, int]:
    """Combine the fits of several frames; also return how many tell of the best shift.

    Frames at the ends of a stream cannot be shifted one way, so a shift counts that half of the
    frames tried. Errors are relative to that at shift 0, for each frame tried other shifts.
    """
    at_zero = np.array([fit.errors[fit.shifts.index(0)] for fit in fits])
    ratios: dict[int, list[float]] = {}
    for fit, zero in zip(fits, at_zero, strict=True):
        for shift, error in zip(fit.shifts, fit.errors, strict=True):
            ratios.setdefault(shift, []).append((error / zero) ** 2 if zero > 0 else 1.0)
    shifts = sorted(shift for shift, found in ratios.items() if 2 * len(found) >= len(fits))
    level = float(np.sqrt(np.mean(at_zero**2)))
    errors = tuple(level * float(np.mean(ratios[shift])) ** 0.5 for shift in shifts)
    combined = ShiftFit(tuple(shifts), errors)
    return combined, len(ratios[combined.best])


def _around(instant: int, steps: int) -> tuple[int, int]:
    """Return the steps around an instant, as symmetric as the stream's ends allow."""
    reach = min(TARGET_WINDOW // 2, instant, steps - instant)
    return (instant - reach, instant + reach) if reach else (max(instant - 1, 0), instant or 1)


def _turned_images(clip: Clip, index: int, image: Gray) -> dict[Turn, list[Gray]]:
    """Return the spike average of a frame's exposure, `image` as declared, turned in every way.

    A wrong stream turns the sensor, a wrong registration the picture: where there is one, a turn
    has an image for both.
    """
    spike, exposure = clip.info.camera, slice(*clip.info.timeline.exposure)

    def read(bit_order: Literal["little", "big"]) -> Spikes:
        """Read the exposure as the sensor saw it, not registered."""
        camera = spike.model_copy(update={"registration": None, "bit_order": bit_order})
        sensor = replace(clip, info=clip.info.model_copy(update={"spike": camera}))
        return read_spikes(sensor, index, index + 1)[0, exposure]

    def average(sensor: Spikes) -> Gray:
        view = sensor if spike.registration is None else spike.registration.apply(sensor)
        return tfp(view, threshold=spike.threshold)

    images: dict[Turn, list[Gray]] = {"as declared": [image]}
    images |= {turn: [image[turned]] for turn, turned in FLIPS.items()}
    if spike.registration is not None:
        declared = read(spike.bit_order)
        for turn, turned in FLIPS.items():
            images[turn].append(average(declared[turned]))
    images["bits swapped"] = [average(read("big" if spike.bit_order == "little" else "little"))]
    return images


def _expected_correlation(gray: Gray, quantum: float) -> float:
    """Return how well gradients can correlate if one image counts in units of `quantum`."""
    signal = float(np.var(np.diff(gray, axis=1)))
    total = signal + 2 * _count_noise(gray, quantum)
    return float((signal / total) ** 0.5) if total > 0 else 0.0


def _count_noise(gray: Gray, quantum: float) -> float:
    """Return the mean variance of an image that counts in units of `quantum`.

    A count is the floor or the ceiling of the charge, whichever the first charge makes it: of a
    charge with the fraction f its variance is f (1 - f).
    """
    fraction = gray / np.float32(quantum) % 1
    return float((fraction * (1 - fraction)).mean()) * quantum**2


def _floor(gray: Gray, quantum: float) -> float:
    """Return the mean squared error that counting leaves after the best gain of brightness."""
    signal, noise = float(np.var(gray)), _count_noise(gray, quantum)
    return signal * noise / (signal + noise) if noise > 0 else 0.0


def _chance(fit: ShiftFit, noise: float, samples: int) -> float:
    """Return the share of the error at shift 0 that another shift can remove by chance.

    All of it, where that error is no more than the noise of counting. Else: the squared error of a
    pixel is (m + x)^2, with the noise x and the mismatch m of the motion; between two shifts its
    mean over all pixels differs by chance with a variance of 2 (var x^2 + 4 m^2 var x) / samples.
    The error itself changes by half of that share.
    """
    square = fit.errors[fit.shifts.index(0)] ** 2
    if square <= noise * (NOISE_MARGIN + CHANCE * (2 / samples) ** 0.5):
        return 1.0
    variance = 2 * (noise**2 + 4 * max(square - noise, 0.0) * noise) / samples
    return min(1.0, CHANCE * float(variance**0.5) / (2 * square))


def _gradient_correlation(a: Gray, b: Gray) -> float:
    """Return the correlation of horizontal differences, 0 where there are none."""
    x, y = np.diff(a, axis=1).ravel(), np.diff(b, axis=1).ravel()
    x, y = x - x.mean(), y - y.mean()
    power = float(x @ x) * float(y @ y)
    return float(x @ y) / power**0.5 if power > 0 else 0.0
