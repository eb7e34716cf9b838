"""Check a dataset folder before it costs training time.

Every sequence of every split is walked, every file of it read. What is wrong comes back as
findings, by kind and place; a folder that cannot be opened at all raises. Nothing is changed.
Limits (`MIN_SHIFT` and the others below) lie well between clean and spoilt data as measured on
rendered scenes and recorded video; a still scene says nothing about time and gives no finding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np

from vrtspike.datasets.agreement import Agreement, measure_agreement
from vrtspike.datasets.clip import Clip
from vrtspike.datasets.findings import Finding, FindingKind, SequenceCheck, Validation
from vrtspike.datasets.frame_check import check_frame, check_images
from vrtspike.datasets.index import Dataset
from vrtspike.errors import DataFormatError
from vrtspike.spikes.timeline import ShiftFit
from vrtspike.storage.folder import Folder

__all__ = ["Finding", "Validation", "check_dataset"]

Contents = defaultdict[bytes, set[tuple[str, str]]]
"""Which sequences hold a frame of some content (a digest of its spikes or of its sharp image)."""
COMPARED_FRAMES, MAX_COMPARED_FRAMES, COMPARED_PIXELS = 4, 16, 100_000
"""Frames of a sequence whose spikes are compared with the images: more where they are small."""
MIN_SHIFT, MIN_SHIFT_GAIN = 3, 0.02
"""Steps, and share of the error that the shift removes, from which a shift is a finding."""
MIN_TURN_CORRELATION, MIN_TURN_GAIN = 0.2, 0.1
"""Gradient correlation, and its lead over the declared one, from which a turn is a finding."""
MAX_UNRELATED, MIN_EXPECTED = 0.1, 0.3
"""Correlation below which spikes show another picture, if as much as the second is expected."""
MAX_BRIGHTNESS = 1.5
"""Ratio of brightness (or its inverse) beyond which the threshold is doubted."""


def check_dataset(
    dataset: Dataset, progress: Callable[[int, int], None] | None = None
) -> Validation:
    """Return what is wrong with a dataset, and what was measured of each sequence."""
    findings: list[Finding] = []
    if not dataset.splits:
        findings.append(Finding("empty", str(dataset.folder), "no sequence of this layout"))
    for folder in dataset.folder.empty_folders():
        findings.append(Finding("empty", dataset.folder.name(folder), "the folder holds no file"))
    work = [(split, name) for split in dataset.splits for name in dataset.sequences(split)]
    contents: Contents = defaultdict(set)
    sequences = []
    for done, (split, sequence) in enumerate(work, start=1):
        found, check = _check_sequence(dataset, split, sequence, contents)
        findings += {(f.kind, f.where, f.message): f for f in found}.values()
        sequences.append(check)
        if progress is not None:
            progress(done, len(work))
    findings += _shared(work, contents, dataset.folder)
    return Validation(tuple(findings), tuple(sequences))


def _check_sequence(
    dataset: Dataset, split: str, sequence: str, contents: Contents
) -> tuple[list[Finding], SequenceCheck]:
    """Check one sequence: its names and sizes, then its files, then what they show."""
    place = f"{split}/{sequence}"
    try:
        indexed, problems = dataset.inspect(split, sequence)
    except DataFormatError as error:
        where = str(error.where or dataset.folder.name(place))
        kind: FindingKind = "image" if error.what == "unreadable image" else "layout"
        return [Finding(kind, where, str(error), place)], SequenceCheck(split, sequence, 0, None)
    findings = [Finding(p.kind, p.where, p.message, place) for p in problems]
    findings += _check_grid(indexed, place)
    agreement = None
    with indexed.local() as clip:
        checks = [check_frame(clip, i, indexed.folder) for i in range(len(clip.frames))]
        for check in checks:
            findings += check.findings
            for digest in check.content:
                contents[digest].add((split, sequence))
        pictures = list(check_images(clip, checks, indexed.folder))
        findings += pictures
        sound = [i for i, check in enumerate(checks) if not check.findings and check.detail]
        whole = all(problem.kind == "gap" for problem in problems)
        if sound and whole and clip.info.spike_scale is not None:
            agreement = measure_agreement(clip, _chosen(sound, clip.info.camera.grid))
            findings += _check_agreement(indexed, agreement, times=not pictures)
    return findings, SequenceCheck(split, sequence, len(checks), agreement)


def _check_grid(clip: Clip, place: str) -> Iterator[Finding]:
    """Report spikes on a grid that no integer says how to lay over the frames."""
    info = clip.info
    if info.spike is not None and info.spike_scale is None:
        message = (
            "the spike grid is no whole number of times coarser than the frames: got spikes of "
            "{}x{} and frames of {}x{}".format(
                *info.spike.grid, info.frame.height, info.frame.width
            )
        )
        yield Finding("layout", clip.where, message, place)


def _chosen(sound: list[int], grid: tuple[int, int]) -> list[int]:
    """Return the frames to be compared, without the sequence's ends where there are enough."""
    count = min(max(COMPARED_FRAMES, COMPARED_PIXELS // (grid[0] * grid[1])), MAX_COMPARED_FRAMES)
    if count + 2 > len(sound):
        return sound[:count]
    at = np.linspace(1, len(sound) - 2, count).round().astype(int)
    return [sound[i] for i in at]


def _check_agreement(clip: Clip, agreement: Agreement, times: bool) -> Iterator[Finding]:
    """Report spikes that show another picture than the frames, or, if asked, at another time."""
    where, facts = clip.where, agreement.facts()

    def finding(kind: FindingKind, message: str) -> Finding:
        return Finding(kind, where, message, clip.name, facts)

    declared = agreement.turns["as declared"]
    turn, best = max(agreement.turns.items(), key=lambda item: item[1])
    if best >= MIN_TURN_CORRELATION and best - declared >= MIN_TURN_GAIN:
        message = f"spikes fit the frames better {turn}: gradients correlate {best:.2f}"
        yield finding("orientation", f"{message} instead of {declared:.2f}")
        return
    if best < MAX_UNRELATED and agreement.expected >= MIN_EXPECTED:
        message = f"spikes do not show the frames: gradients correlate {best:.2f}"
        yield finding("unrelated", f"{message}, expected {agreement.expected:.2f}")
        return
    exposure, target = agreement.exposure, agreement.target
    if times and _is_shifted(exposure, agreement.exposure_chance):
        message = f"the blurred frames fit an exposure {exposure.best:+d} steps from the declared"
        yield finding("exposure-shift", f"{message} (error {exposure.gain:.0%} less)")
    if times and _is_shifted(target, agreement.target_chance):
        message = f"the sharp frames fit an instant {target.best:+d} steps from target_step"
        yield finding("target-shift", f"{message} (error {target.gain:.0%} less)")
    wrong = not 1 / MAX_BRIGHTNESS <= agreement.brightness <= MAX_BRIGHTNESS
    if wrong and agreement.spikes_off > 1:
        message = f"threshold x rate is {agreement.brightness:.2f} times the frames' brightness"
        yield finding("brightness", f"{message}; is the threshold right?")


def _is_shifted(fit: ShiftFit, chance: float) -> bool:
    """Tell whether a shift explains the frames clearly better than none."""
    return abs(fit.best) >= MIN_SHIFT and fit.gain >= max(MIN_SHIFT_GAIN, chance)


def _shared(work: list[tuple[str, str]], contents: Contents, folder: Folder) -> Iterator[Finding]:
    """Report sequences with frames of one content in several splits.

    One name counts only where the frames of one of the two show nothing that could be compared, and
    numbers not even there: published splits count from 0 each.
    """
    pairs: dict[tuple[tuple[str, str], tuple[str, str]], str] = {}
    by_name: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for split, sequence in work:
        if not sequence.isdecimal():
            by_name[sequence].append((split, sequence))
    compared = set[tuple[str, str]]().union(*contents.values())
    for group in by_name.values():
        for first, other in combinations(sorted(group), 2):
            if not {first, other} <= compared:
                message = f"has the name of a sequence of split {first[0]}"
                pairs[first, other] = f"{message}, and the frames could not be compared"
    for group in map(sorted, contents.values()):
        first, *others = group
        for other in others:
            if other[0] != first[0]:
                pairs[first, other] = f"is also in split {first[0]}, as {first[1]}"
    for (first, other), message in sorted(pairs.items()):
        place = "/".join(other)
        yield Finding(
            "shared-sequence", f"{folder}/{place}", message, place, {"also": "/".join(first)}
        )
