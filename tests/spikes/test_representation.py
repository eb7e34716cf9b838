"""What a model sees of the spikes is what the module says, one pixel and one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vrtspike.config.model import ModelSettings, SpikeBranchSettings
from vrtspike.datasets.clip import Clip, read_spikes
from vrtspike.datasets.index import open_dataset
from vrtspike.datasets.represent import own_spikes, represent_frames
from vrtspike.errors import DataFormatError
from vrtspike.spikes.reconstruct import tfi, tfp
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.spikes.timeline import Timeline

Array = NDArray[Any]
THRESHOLD = 1.7
HALF = 2**-11
"""Relative rounding to float16."""
EVERYTHING = SpikeRepresentation(3, windows=(0.1, 0.5, 1.0, 2.6), exposure=True, interval=True)
KINDS = {
    "exposure": EVERYTHING,
    "target": replace(EVERYTHING, around="target"),
    "log1p": replace(EVERYTHING, around="target", voxels="log1p"),
    "more bins than steps": replace(EVERYTHING, bins=17),
}
TIMELINES = [
    Timeline(8, (0, 8), 4),
    Timeline(9, (2, 7), 2),
    Timeline(10, (0, 10), 10),
    Timeline(7, (0, 5), 0),
    Timeline(12, (3, 10), 8),
    Timeline(6, (1, 6), 6),
]


def spikes_of(timeline: Timeline, frames: int = 4, rate: float = 0.3, seed: int = 0) -> Array:
    """Draw spikes (t, s, 5, 6), of which two pixels are dark and one fires all the time."""
    rng = np.random.default_rng(seed)
    spikes = rng.random((frames, timeline.steps_per_frame, 5, 6)) < rate
    spikes[..., 0, :2], spikes[..., 1, 0] = False, True
    return spikes


class Naive:
    """The docstring of the module, word by word, for one frame."""

    def __init__(self, stream: Array, first: int, timeline: Timeline, threshold: float) -> None:
        self.stream, self.threshold, self.timeline = stream, threshold, timeline
        self.start, self.stop = (first + edge for edge in timeline.exposure)
        self.target = first + timeline.target_step

    def held(self, steps: range) -> list[int]:
        """Return the steps that are there, or else the nearest one."""
        there = [step for step in steps if 0 <= step < len(self.stream)]
        return there or [0 if steps[0] < 0 else len(self.stream) - 1]

    def mean(self, steps: range) -> Array:
        held = self.held(steps)
        return self.threshold * sum(self.stream[step].astype(float) for step in held) / len(held)

    def bins(self, represent: SpikeRepresentation) -> list[Array]:
        length = self.stop - self.start
        begin = self.target - length // 2 if represent.around == "target" else self.start
        members: list[list[int]] = [[] for _ in range(represent.bins)]
        for step in range(length):
            members[step * represent.bins // length].append(begin + step)
        if represent.bins > length:  # each takes the step in which it begins
            starts = (Fraction(k * length, represent.bins) for k in range(represent.bins))
            members = [[begin + floor(start)] for start in starts]
        parts = [range(part[0], part[-1] + 1) for part in members]
        if represent.voxels == "rate":
            return [self.mean(part) for part in parts]
        return [np.log1p(sum(self.stream[s].astype(float) for s in self.held(p))) for p in parts]

    def window(self, share: float) -> Array:
        length = max(1, round(share * self.timeline.steps_per_frame))
        return self.mean(range(self.target - length // 2, self.target - length // 2 + length))

    def interval(self) -> Array:
        """Search the last spike before the target and the first one from it on, a frame's steps
        away at most; where one is missing, what was searched counts."""
        reach = self.timeline.steps_per_frame
        lo = min(max(self.target - reach, 0), len(self.stream) - 1)
        hi = max(min(self.target + reach, len(self.stream)), lo + 1)
        instant = min(max(self.target, lo), hi)
        image = np.zeros(self.stream.shape[1:])
        for pixel in np.ndindex(image.shape):
            before = [s for s in range(lo, instant) if self.stream[(s, *pixel)]]
            after = [s for s in range(instant, hi) if self.stream[(s, *pixel)]]
            if before or after:
                length = (after[0] if after else hi - 1) - (before[-1] if before else lo - 1)
                image[pixel] = self.threshold / max(length, 1)
        return image


def naive(
    represent: SpikeRepresentation,
    spikes: Array,
    timeline: Timeline,
    *,
    shift: int = 0,
    continuous: bool = True,
) -> Array:
    """Represent spikes without any trick."""
    steps, frames = timeline.steps_per_frame, []
    for index, own in enumerate(spikes):
        stream = np.concatenate(spikes) if continuous else own
        first = (index * steps if continuous else 0) + shift
        one = Naive(stream, first, timeline, THRESHOLD)
        images = [*one.bins(represent), *(one.window(share) for share in represent.windows)]
        if represent.exposure:
            images.append(one.mean(range(one.start, one.stop)))
        if represent.interval:
            images.append(one.interval())
        frames.append(np.stack(images))
    return np.stack(frames)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timeline", TIMELINES, ids=str)
def test_it_is_what_the_module_says(timeline: Timeline, kind: str) -> None:
    represent, spikes = KINDS[kind], spikes_of(timeline)
    for shift, continuous in product((0, -3, 5), (True, False)):
        where = {"shift": shift, "continuous": continuous}
        found = represent(spikes, timeline, THRESHOLD, **where)
        assert found.dtype == np.float16 and found.shape == (4, represent.channels, 5, 6)
        expected = naive(represent, spikes, timeline, **where)
        np.testing.assert_allclose(found, expected, rtol=HALF, err_msg=str(where))


def test_windows_that_hold_no_step_at_all_take_the_nearest() -> None:
    timeline = Timeline(4, (0, 4), 2)
    spikes = spikes_of(timeline, frames=2)
    represent = SpikeRepresentation(2, windows=(0.25,), exposure=True, interval=True)
    for shift in (-40, 40):
        found = represent(spikes, timeline, THRESHOLD, shift=shift)
        nearest = THRESHOLD * spikes.reshape(8, 5, 6)[0 if shift < 0 else -1]
        for frame, image in product(range(2), range(4)):
            np.testing.assert_allclose(found[frame, image], nearest, rtol=HALF)
        assert np.isfinite(found[:, -1]).all()


@pytest.mark.parametrize("timeline", TIMELINES, ids=str)
def test_images_are_those_of_the_reconstructions(timeline: Timeline) -> None:
    shares = (0.2, 0.6, 1.5)
    represent = SpikeRepresentation(1, windows=shares, exposure=True, interval=True)
    steps, spikes = timeline.steps_per_frame, spikes_of(timeline)
    stream, found = np.concatenate(spikes), represent(spikes, timeline, THRESHOLD)
    for frame in range(4):
        target = frame * steps + timeline.target_step
        start, stop = (frame * steps + edge for edge in timeline.exposure)
        _, *windows, exposed, interval = found[frame]
        for share, image in zip(shares, windows, strict=True):
            window = max(1, round(share * steps))
            if target - window // 2 < len(stream):  # the target may be the very end
                expected = tfp(stream, threshold=THRESHOLD, center=target, window=window)
                np.testing.assert_allclose(image, expected, rtol=HALF)
        np.testing.assert_allclose(exposed, tfp(stream[start:stop], threshold=THRESHOLD), rtol=HALF)
        # Where spikes are on both sides within a frame's steps the whole stream says the same.
        near = tfi(stream, step=target, threshold=THRESHOLD)
        both = (
            stream[max(target - steps, 0) : target].any(axis=0)
            & stream[target : target + steps].any(axis=0)
        )  # fmt: skip
        np.testing.assert_allclose(interval[both], near[both], rtol=HALF)
        assert both.sum() > 10 or target in (0, len(stream))
    np.testing.assert_allclose(found[:, 0], found[:, -2], rtol=HALF)  # one bin is the exposure


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timeline", TIMELINES, ids=str)
def test_as_many_neighbours_as_it_says_are_enough(timeline: Timeline, kind: str) -> None:
    spikes = spikes_of(timeline, frames=7)
    for represent in (
        KINDS[kind],
        replace(KINDS[kind], interval=False),
        replace(KINDS[kind], interval=False, windows=()),
    ):
        whole, reach = represent(spikes, timeline, THRESHOLD), represent.reach(timeline)
        for start, stop in [(0, 2), (3, 4), (2, 6), (5, 7)]:
            first, last = max(start - reach, 0), min(stop + reach, 7)
            part = represent(
                spikes[first:last],
                timeline,
                THRESHOLD,
                frames=slice(start - first, stop - first),
            )
            np.testing.assert_array_equal(part, whole[start:stop])


def test_no_more_neighbours_are_read_than_windows_reach_into() -> None:
    timeline = Timeline(8, (1, 7), 4)
    for represent, reach in [
        (SpikeRepresentation(3), 0),
        (SpikeRepresentation(3, exposure=True, windows=(0.5, 1.0)), 0),
        (SpikeRepresentation(3, around="target"), 0),
        (SpikeRepresentation(3, windows=(1.2,)), 1),
        (SpikeRepresentation(3, windows=(3.0,)), 1),
        (SpikeRepresentation(3, windows=(3.2,)), 2),
        (SpikeRepresentation(3, interval=True), 1),
    ]:
        assert represent.reach(timeline) == reach
    early = replace(timeline, target_step=1)
    assert SpikeRepresentation(3, windows=(0.25,)).reach(early) == 0
    assert SpikeRepresentation(3, around="target").reach(early) == 1


def between_spikes(spikes: Array, timeline: Timeline, shift: int, continuous: bool) -> Array:
    """Tell where spikes lie on both sides of the target, a frame's steps away at most."""
    steps, found = timeline.steps_per_frame, []
    for index, own in enumerate(spikes):
        stream = np.concatenate(spikes) if continuous else own
        target = (index * steps if continuous else 0) + timeline.target_step + shift
        before, after = stream[max(target - steps, 0) : target], stream[target : target + steps]
        found.append(before.any(axis=0) & after.any(axis=0))
    assert not continuous or np.mean(found) > 0.3
    return np.stack(found)


@pytest.mark.parametrize("around", ["exposure", "target"])
@pytest.mark.parametrize(
    "timeline",
    [Timeline(8, (0, 8), 4), Timeline(12, (2, 10), 5), Timeline(11, (1, 9), 9)],
    ids=str,
)
def test_backwards_it_sees_the_same_and_its_bins_in_reverse(
    timeline: Timeline, around: str
) -> None:
    """Bins of two steps and windows of even length, which lie alike on both sides of a border."""
    steps = timeline.steps_per_frame
    represent = SpikeRepresentation(
        4,
        around=around,  # type: ignore[arg-type]
        windows=(2 / steps, 6 / steps, 16 / steps),
        exposure=True,
        interval=True,
    )
    spikes = spikes_of(timeline)
    for shift, continuous in product((0, 2), (True, False)):
        forward = represent(spikes, timeline, THRESHOLD, shift=shift, continuous=continuous)
        backward = represent(
            spikes[::-1, ::-1],
            timeline.reversed(),
            THRESHOLD,
            shift=-shift,
            continuous=continuous,
        )[::-1]
        np.testing.assert_array_equal(backward[:, :4], forward[:, 3::-1])
        np.testing.assert_array_equal(backward[:, 4:-1], forward[:, 4:-1])
        # Spikes fire at the end of a step, backwards at its beginning: intervals that end at an
        # edge instead of a spike are one step longer or shorter.
        whole = between_spikes(spikes, timeline, shift, continuous)
        np.testing.assert_array_equal(backward[:, -1][whole], forward[:, -1][whole])
        lit = forward[:, -1] > 0
        np.testing.assert_array_equal(backward[:, -1] > 0, lit)
        lengths = [THRESHOLD / images[:, -1][lit].astype(float) for images in (forward, backward)]
        np.testing.assert_allclose(*lengths, atol=1.01)


def test_rates_scale_with_the_threshold_and_logs_do_not() -> None:
    timeline = TIMELINES[0]
    spikes, rates, logs = (
        spikes_of(timeline),
        SpikeRepresentation(4),
        SpikeRepresentation(4, voxels="log1p"),
    )
    one, two = (rates(spikes, timeline, threshold) for threshold in (1.0, 2.0))
    np.testing.assert_array_equal(two, 2 * one)
    np.testing.assert_array_equal(logs(spikes, timeline, 1.0), logs(spikes, timeline, 2.0))


def test_counts_above_255_are_not_cut() -> None:
    timeline = Timeline(600, (0, 600), 300)
    represent = SpikeRepresentation(1, windows=(1.0,), exposure=True, voxels="log1p")
    found = represent(np.ones((1, 600, 2, 2), bool), timeline, 1.0)[0]
    np.testing.assert_allclose(found[0], np.log1p(600), rtol=HALF)
    np.testing.assert_array_equal(found[1:], 1.0)


def test_channels_are_what_the_model_is_told() -> None:
    spike = SpikeBranchSettings(bins=5, windows=(0.1, 0.5), exposure=True, interval=True)
    model = ModelSettings(fusion="concat", spike=spike)
    represent = SpikeRepresentation.of(model, "log1p")
    assert represent is not None
    assert represent.channels == spike.channels == 9 and represent.voxels == "log1p"
    timeline = TIMELINES[0]
    assert represent(spikes_of(timeline), timeline, 1.0).shape[1] == 9
    assert SpikeRepresentation.of(model.model_copy(update={"fusion": "none"})) is None


def test_spikes_that_do_not_fit_are_refused() -> None:
    timeline = TIMELINES[0]
    with pytest.raises(DataFormatError, match=r"steps of a frame.*got 9 steps.*expected 8"):
        SpikeRepresentation(4)(np.zeros((2, 9, 4, 4), bool), timeline, 1.0)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, moving_photograph: Callable[..., Path]) -> Clip:
    root = moving_photograph(tmp_path_factory.mktemp("data"), {"a": 6})
    return open_dataset(root).clip("held_out", "a")


@pytest.mark.parametrize("continuous", [True, False])
def test_frames_of_a_clip_are_those_of_all_its_spikes(clip: Clip, continuous: bool) -> None:
    clip = replace(clip, info=clip.info.model_copy(update={"continuous": continuous}))
    represent = SpikeRepresentation(8, windows=(0.25, 1.5), exposure=True, interval=True)
    spikes, timeline = read_spikes(clip), clip.info.timeline
    whole = represent(spikes, timeline, clip.info.camera.threshold, continuous=continuous)
    for start, stop in [(0, 6), (0, 1), (2, 4), (5, 6)]:
        found = represent_frames(clip, start, stop, represent)
        np.testing.assert_array_equal(found, whole[start:stop])


def test_a_clip_is_read_frame_by_frame_and_each_once(clip: Clip) -> None:
    read: list[int] = []

    def look(clip: Clip, index: int) -> tuple[Array, float]:
        read.append(index)
        return own_spikes(clip, index)[0], 1.0 + index

    reaching = SpikeRepresentation(4, interval=True)
    found = represent_frames(clip, 2, 5, reaching, look)
    assert sorted(read) == [1, 2, 3, 4, 5] and len(set(read)) == len(read)
    # Each frame is scaled by the threshold of the camera that gave its own spikes.
    plain = represent_frames(clip, 2, 5, reaching)
    ratio = np.array([3, 4, 5])[:, None, None, None] / clip.info.camera.threshold
    np.testing.assert_allclose(found, plain * ratio, rtol=2 * HALF)
    read.clear()
    represent_frames(clip, 2, 5, SpikeRepresentation(4), look)
    assert read == [2, 3, 4]
