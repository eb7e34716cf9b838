"""What `vrtspike validate` found, as one page that anyone can open.

In: a dataset and the outcome of its check. Out: an HTML file without links: how much was found of
each kind and in each split, every finding, what was measured of each sequence, and of some
sequences, those with findings first, a frame in the middle: blurred, sharp, and the spikes' scaled
average over its exposure (TFP), with the geometry and the times that they were read with.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup
from PIL import Image

from vrtspike.datasets.clip import FRAME_KINDS, Clip, FrameKind, iter_spikes, read_frames
from vrtspike.datasets.findings import Finding, SequenceCheck, Validation
from vrtspike.datasets.index import Dataset
from vrtspike.datasets.info import DatasetInfo
from vrtspike.errors import VrtSpikeError
from vrtspike.report.page import fill, image_uri
from vrtspike.report.spikes import to_picture
from vrtspike.storage.atomic import write_atomically

SHOWN_SEQUENCES = 24
SHOWN_FINDINGS = 500
THUMBNAIL = (320, 240)
"""Most columns and rows of a picture."""
HEADS = (
    *("Sequence", "Frames", "Findings", "Gradient correlation (expected)"),
    *("Best exposure offset", "Best target offset", "Brightness ratio"),
)
KINDS: tuple[FrameKind | Literal["spikes"], ...] = (*FRAME_KINDS, "spikes")
Picture = UInt8[np.ndarray, "h w ..."]


def write_validation_report(
    path: Path, dataset: Dataset, validation: Validation, *, title: str | None = None
) -> None:
    """Write the page of a check of a dataset; the title is the folder's name if not given."""
    findings, checks = validation.findings, validation.sequences
    spoilt = {finding.sequence for finding in findings if finding.sequence}
    frames = sum(check.frames for check in checks)
    # Those with findings first.
    shown = sorted(checks, key=lambda check: check.name not in spoilt)[:SHOWN_SEQUENCES]
    tiles = [
        (len(checks), "sequences"),
        (frames, "frames with all of their files"),
        (len(findings), "findings"),
        (len(spoilt), "sequences with findings"),
    ]
    text = fill(
        "validation.html.j2",
        title=title or str(dataset.folder).rstrip("/").rpartition("/")[2] or str(dataset.folder),
        dataset=dataset,
        tiles=[(f"{count:,}", "", what) for count, what in tiles],
        **_counts(dataset, validation),
        findings=[
            [f.kind, f.where.removeprefix(f"{dataset.folder}/"), f.message]
            for f in findings[:SHOWN_FINDINGS]
        ],
        more_findings=len(findings) - SHOWN_FINDINGS,
        pictures=[_pictures(dataset, check) for check in shown],
        unshown=len(checks) - len(shown),
        heads=HEADS,
        sequences=_sequences(validation),
    )
    write_atomically(path, text.encode("utf-8"))


def describe(info: DatasetInfo) -> str:
    """State the geometry and the times of a sequence in one line."""
    text = f"frames {info.frame.width} × {info.frame.height}"
    if info.spike is None:
        return f"{text}, no spikes"
    spike, timeline = info.spike, info.timeline
    start, stop = timeline.exposure
    text += f", spikes {spike.width} × {spike.height}"
    if spike.registration is not None:
        rows, columns = spike.grid
        text += f" ({spike.registration.kind} to {columns} × {rows})"
    text += f" at {spike.rate_hz:,g} Hz, threshold {spike.threshold:g}, "
    text += f"{timeline.steps_per_frame} steps a frame, exposure [{start}, {stop}), "
    text += f"target step {timeline.target_step}"
    return text + (
        f", stream {spike.time_offset_steps:+d} steps" if spike.time_offset_steps else ""
    )


def _counts(dataset: Dataset, validation: Validation) -> dict[str, Any]:
    """Return how many findings there are of each kind, by split."""
    counts = Counter((str(f.kind), _split(dataset, f)) for f in validation.findings)
    splits = sorted({split for _, split in counts})
    rows = [
        [kind, *(f"{counts[kind, split] or ''}" for split in splits), f"{total}"]
        for kind, total in validation.kinds.items()
    ]
    return {"splits": [split or "whole dataset" for split in splits], "counts": rows}


def _split(dataset: Dataset, finding: Finding) -> str:
    """Return the split of a finding; empty if it is about the whole dataset."""
    matching = (s for s in dataset.splits if finding.sequence.startswith(f"{s}/"))
    return max(matching, key=len, default="")


def _sequences(validation: Validation) -> list[list[str]]:
    """Return what was measured of every sequence."""
    counts = Counter(f.sequence for f in validation.findings)
    rows = []
    for check in validation.sequences:
        row = [check.name, f"{check.frames:,}", f"{counts[check.name] or ''}"]
        if (a := check.agreement) is not None:
            row += [
                f"{a.turns['as declared']:.2f} ({a.expected:.2f})",
                f"{a.exposure.best:+d} steps, error {a.exposure.gain:.0%} less",
                f"{a.target.best:+d} steps, error {a.target.gain:.0%} less",
                f"{a.brightness:.2f}",
            ]
        rows.append(row + [""] * (len(HEADS) - len(row)))
    return rows


def _pictures(
    dataset: Dataset, check: SequenceCheck
) -> tuple[str, list[tuple[str, Markup | None, str]], str]:
    """Return a sequence's name, its pictures and what they are, or why there are none."""
    try:
        clip, _ = dataset.inspect(check.split, check.sequence)
        if not clip.frames:
            raise ValueError("no frame has all of its files")
        frame = clip.frames[len(clip.frames) // 2]
        files = {piece.file for piece in frame.spikes}
        steps = {file: count for file, count in clip.steps.items() if file in files}
        clip = replace(clip, frames=(frame,), steps=steps)
        with clip.local() as here:
            cells = [_picture(here, kind) for kind in KINDS if getattr(frame, kind)]
        return check.name, cells, f"frame {frame.name}; {describe(clip.info)}"
    except (VrtSpikeError, ValueError) as error:
        return check.name, [], str(error)


def _picture(clip: Clip, kind: FrameKind | Literal["spikes"]) -> tuple[str, Markup | None, str]:
    """Return the label of a clip's only frame, and its picture or why there is none."""
    label = "spikes (TFP)" if kind == "spikes" else kind
    try:
        image = _exposure_average(clip) if kind == "spikes" else read_frames(clip, kind)[0]
    except VrtSpikeError as error:
        return label, None, str(error)
    return label, thumbnail_uri(image), ""


def _exposure_average(clip: Clip) -> UInt8[np.ndarray, "h w"]:
    """Return threshold x the mean of the exposure's spikes of a clip's only frame, in 8 bits.

    Read in bounded memory: the exposure of a stream without frames is the whole recording.
    """
    spike, (start, stop) = clip.info.camera, clip.info.timeline.exposure
    total = np.zeros(spike.grid, np.int64)
    for spikes in iter_spikes(clip, 0, start, stop):
        total += spikes.sum(axis=0, dtype=np.int32)
    return to_picture(total * (spike.threshold / (stop - start)))


def thumbnail_uri(image: Picture) -> Markup:
    """Return a small JPEG of an RGB or gray image as a URI that holds it."""
    small = Image.fromarray(image)
    small.thumbnail(THUMBNAIL, Image.Resampling.BOX)
    file = io.BytesIO()
    small.save(file, format="JPEG", quality=85)
    return image_uri("jpeg", file.getvalue())
