"""Check a dataset folder before it costs training time.

Every sequence of every split is walked, every file of it read. What is wrong comes back as
findings, by kind and place; a folder that cannot be opened at all raises. Nothing is changed.
Limits (`MIN_SHIFT` and the others below) lie well between clean and spoilt data as measured on
rendered scenes and recorded video; a still scene says nothing about time and gives no finding.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vrtspike.data.agreement import Agreement, measure_agreement
from vrtspike.data.alignment import ShiftFit
from vrtspike.data.dat import bytes_per_step
from vrtspike.data.dataset import Clip, Dataset, frame_names, open_dataset, read_frames
from vrtspike.errors import DataFormatError

Kind = Literal[
    "empty",
    "missing",
    "extra",
    "stream-size",
    "image",
    "dead-spikes",
    "blurred-is-sharp",
    "orientation",
    "exposure-shift",
    "target-shift",
    "brightness",
    "unrelated",
    "shared-sequence",
]
COMPARED_FRAMES = 4
"""Frames of a sequence whose spikes are compared with the images."""
MIN_SHIFT, MIN_SHIFT_GAIN = 3, 0.02
"""Steps, and share of the error that the shift removes, from which a shift is a finding."""
MIN_TURN_CORRELATION, MIN_TURN_GAIN = 0.2, 0.1
"""Gradient correlation, and its lead over the declared one, from which a turn is a finding."""
MAX_BRIGHTNESS = 1.5
"""Ratio of brightness (or its inverse) beyond which the threshold is doubted."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its kind, the file or folder, and what to know about it."""

    kind: Kind
    where: str
    message: str


def validate(
    root: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None
) -> list[Finding]:
    """Return what is wrong with a dataset folder; an empty list if nothing was found."""
    dataset = open_dataset(root)
    findings: list[Finding] = []
    if not dataset.splits:
        findings.append(Finding("empty", str(dataset.root), "no split"))
    work: list[tuple[str, str]] = []
    for split in dataset.splits:
        try:
            work += [(split, sequence) for sequence in dataset.sequences(split)]
        except DataFormatError as error:
            findings.append(Finding("empty", str(error.where), error.what))
    contents: dict[bytes, set[tuple[str, str]]] = defaultdict(set)
    for done, (split, sequence) in enumerate(work, start=1):
        findings += _check_sequence(dataset, split, sequence, contents)
        if progress is not None:
            progress(done, len(work))
    return findings + list(_shared(work, contents, dataset.root))


def _check_sequence(
    dataset: Dataset, split: str, sequence: str, contents: dict[bytes, set[tuple[str, str]]]
) -> Iterator[Finding]:
    """Check one sequence: its names, then its files, then what they show."""
    folder = dataset.root / split / sequence
    try:
        names = frame_names(folder)
    except DataFormatError as error:
        yield Finding("missing", str(error.where), error.what)
        return
    common = set.intersection(*names.values())
    yield from _check_names(folder, names)
    clip = Clip(split, sequence, dataset.root, tuple(sorted(common)), dataset.info)
    sound = []
    for index in range(len(clip.frames)):
        problems = list(_check_frame(clip, index, contents))
        yield from problems
        if not problems:
            sound.append(index)
    if len(sound) == len(clip.frames) > 0:
        chosen = np.linspace(0, len(sound) - 1, COMPARED_FRAMES + 2).round().astype(int)
        inner = sorted({*chosen[1:-1].tolist()})
        yield from _check_agreement(str(folder), measure_agreement(clip, inner))


def _check_names(folder: Path, names: dict[str, set[str]]) -> Iterator[Finding]:
    """Report frames that lack a file of some kind, and gaps in numbered frames."""
    every = set[str]().union(*names.values())
    if not every:
        yield Finding("empty", str(folder), "the sequence holds no frame")
        return
    most = max(len(have) for have in names.values())
    for kind, have in names.items():
        lacking = sorted(every - have)
        if lacking and len(have) < most:
            yield Finding("missing", str(folder / kind), f"no {kind} of {_listed(lacking)}")
        only = sorted(have - set[str]().union(*(n for k, n in names.items() if k != kind)))
        if only:
            yield Finding("extra", str(folder / kind), f"only {kind} of {_listed(only)}")
    if all(name.isdecimal() for name in every):
        numbers = {int(name) for name in every}
        gaps = sorted(set(range(min(numbers), max(numbers))) - numbers)
        if gaps:
            yield Finding("missing", str(folder), f"numbers without a frame: {_listed(gaps)}")


def _check_frame(
    clip: Clip, index: int, contents: dict[bytes, set[tuple[str, str]]]
) -> Iterator[Finding]:
    """Check the three files of a frame, each by itself."""
    path = clip.spike_path(index)
    try:
        packed = clip.spike_stream(index).packed
        spike = clip.info.spike
        pixels = spike.height * spike.width
        used = np.unpackbits(packed, axis=1, bitorder=spike.bit_order)[:, :pixels]
        fired = int(used.sum(dtype=np.int64))
        if fired in (0, used.size):
            state = "no pixel ever fires" if not fired else "every pixel fires at every step"
            yield Finding("dead-spikes", str(path), state)
        else:
            contents[hashlib.sha1(packed.tobytes()).digest()].add((clip.split, clip.sequence))
    except DataFormatError as error:
        info = clip.info
        size = info.steps_per_frame * bytes_per_step(info.spike.height, info.spike.width)
        yield Finding("stream-size", str(path), f"{error} (a frame has {size} bytes)")
    images = []
    for kind in ("blurred", "sharp"):
        try:
            images.append(read_frames(clip, kind, index, index + 1)[0])
        except DataFormatError as error:
            yield Finding("image", str(error.where), str(error))
    if len(images) == 2 and np.array_equal(*images):
        where = str(clip.frame_path("blurred", index))
        yield Finding("blurred-is-sharp", where, "the blurred frame is its own ground truth")


def _check_agreement(where: str, agreement: Agreement) -> Iterator[Finding]:
    """Report spikes that show another picture than the frames, or at another time."""
    declared = agreement.turns["as declared"]
    turn, best = max(agreement.turns.items(), key=lambda item: item[1])
    if best >= MIN_TURN_CORRELATION and best - declared >= MIN_TURN_GAIN:
        message = f"spikes fit the frames better {turn}: gradients correlate {best:.2f}"
        yield Finding("orientation", where, f"{message} instead of {declared:.2f}")
        return
    if best < 0.5 * MIN_TURN_CORRELATION:
        message = f"spikes do not show the frames: gradients correlate {best:.2f}"
        yield Finding("unrelated", where, message)
        return
    exposure, target = agreement.exposure, agreement.target
    if _is_shifted(exposure):
        message = f"the blurred frames fit an exposure {exposure.best:+d} steps from the declared"
        yield Finding("exposure-shift", where, f"{message} (error {exposure.gain:.0%} less)")
    if _is_shifted(target):
        message = f"the sharp frames fit an instant {target.best:+d} steps from target_step"
        yield Finding("target-shift", where, f"{message} (error {target.gain:.0%} less)")
    if not 1 / MAX_BRIGHTNESS <= agreement.brightness <= MAX_BRIGHTNESS:
        message = f"threshold x rate is {agreement.brightness:.2f} times the frames' brightness"
        yield Finding("brightness", where, f"{message}; is the threshold right?")


def _is_shifted(fit: ShiftFit) -> bool:
    """Tell whether a shift explains the frames clearly better than none."""
    return abs(fit.best) >= MIN_SHIFT and fit.gain >= MIN_SHIFT_GAIN


def _shared(
    work: list[tuple[str, str]], contents: dict[bytes, set[tuple[str, str]]], root: Path
) -> Iterator[Finding]:
    """Report sequences of one name, or with frames of one content, in several splits."""
    pairs: set[tuple[tuple[str, str], tuple[str, str]]] = set()
    by_name: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for split, sequence in work:
        by_name[sequence].append((split, sequence))
    for group in [*by_name.values(), *map(sorted, contents.values())]:
        first, *others = group
        pairs |= {(first, other) for other in others if other[0] != first[0]}
    for first, other in sorted(pairs):
        yield Finding(
            "shared-sequence",
            str(root / other[0] / other[1]),
            f"is also in split {first[0]}, as {first[1]}",
        )


def _listed(items: list[str] | list[int]) -> str:
    """Name the first few of many."""
    text = ", ".join(str(item) for item in items[:5])
    return text + (f" and {len(items) - 5} more" if len(items) > 5 else "")
