"""What `vrtspike validate` found, as one page that anyone can open.

In: a dataset and the outcome of its check. Out: an HTML file without links: how much was found of
each kind and in each split, every finding, what was measured of each sequence, and of some
sequences, those with findings first, a frame in the middle: blurred, sharp, and the spikes' scaled
average over its exposure (TFP), with the geometry and the times that they were read with.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vrtspike.datasets.clip import FRAME_KINDS, Clip, FrameKind, iter_spikes, read_frames
from vrtspike.datasets.findings import Finding, SequenceCheck, Validation
from vrtspike.datasets.index import Dataset
from vrtspike.datasets.info import DatasetInfo
from vrtspike.errors import VrtSpikeError
from vrtspike.report.page import header, image_uri, page, tiles
from vrtspike.report.spikes import to_picture
from vrtspike.report.text import escape
from vrtspike.storage.folder import write_atomically

SHOWN_SEQUENCES = 24
SHOWN_FINDINGS = 500
THUMBNAIL = (320, 240)
"""Most columns and rows of a picture."""
STYLE = """
.left td, .left th { text-align: left; white-space: normal; vertical-align: top; }
.left td { overflow-wrap: anywhere; }
.left td:first-child, .left th { white-space: nowrap; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(480px, 100%), 1fr)); gap: 24px; }
.clips article > p { color: var(--soft); font-size: 12.5px; overflow-wrap: anywhere; }
.clips h3 { margin-bottom: 2px; overflow-wrap: anywhere; }
.three { display: grid; grid-template-columns: repeat(3, 1fr); gap: 6px; margin: 8px 0; }
.three img { display: block; width: 100%; border-radius: 6px; }
"""  # noqa: E501

KINDS: tuple[FrameKind | Literal["spikes"], ...] = (*FRAME_KINDS, "spikes")
Picture = UInt8[np.ndarray, "h w ..."]


def write_validation_report(
    path: Path, dataset: Dataset, validation: Validation, *, title: str | None = None
) -> None:
    """Write the page of a check of a dataset; the title is the folder's name if not given."""
    title = title or str(dataset.folder).rstrip("/").rpartition("/")[2] or str(dataset.folder)
    sections = [
        _header(dataset, validation, title),
        _summary(dataset, validation),
        _findings(dataset, validation.findings),
        _pictures(dataset, validation),
        _sequences(validation),
    ]
    text = page(f"{title}: vrtspike validate", "".join(sections), STYLE)
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


def _header(dataset: Dataset, validation: Validation, title: str) -> str:
    found = len(validation.findings)
    about = [
        escape(str(dataset.folder)),
        f"splits {escape(', '.join(dataset.splits) or 'none')}",
        f"<b>{found} findings</b>" if found else "<b>nothing found</b>",
    ]
    return header("vrtspike validate", title, " · ".join(about))


def _summary(dataset: Dataset, validation: Validation) -> str:
    """Return the numbers of the whole dataset, and of each kind of finding by split."""
    with_findings = {f.sequence for f in validation.findings if f.sequence}
    frames = sum(check.frames for check in validation.sequences)
    numbers = tiles(
        [
            (f"{len(validation.sequences):,}", "", "sequences"),
            (f"{frames:,}", "", "frames with all of their files"),
            (f"{len(validation.findings):,}", "", "findings"),
            (f"{len(with_findings):,}", "", "sequences with findings"),
        ]
    )
    if not validation.findings:
        return numbers
    counts = Counter((str(f.kind), _split(dataset, f)) for f in validation.findings)
    splits = sorted({split for _, split in counts})
    rows = [
        [kind, *(f"{counts[kind, split] or ''}" for split in splits), f"{total}"]
        for kind, total in validation.kinds.items()
    ]
    heads = ["Kind", *(split or "whole dataset" for split in splits), "All"]
    return f"{numbers}<section><h2>By kind and split</h2>{_table(heads, rows, 'dense')}</section>"


def _split(dataset: Dataset, finding: Finding) -> str:
    """Return the split of a finding; empty if it is about the whole dataset."""
    matching = (s for s in dataset.splits if finding.sequence.startswith(f"{s}/"))
    return max(matching, key=len, default="")


def _findings(dataset: Dataset, findings: tuple[Finding, ...]) -> str:
    if not findings:
        return ""
    rows = [
        [f.kind, f.where.removeprefix(f"{dataset.folder}/"), f.message]
        for f in findings[:SHOWN_FINDINGS]
    ]
    table = _table(["Kind", "Where", "What"], rows, "dense left")
    more = len(findings) - len(rows)
    note = f'<p class="note">{more:,} more are in the JSON report.</p>' if more else ""
    return f"<section><h2>Findings</h2>{table}{note}</section>"


def _sequences(validation: Validation) -> str:
    """Return what was measured of every sequence."""
    counts = Counter(f.sequence for f in validation.findings)
    heads = ["Sequence", "Frames", "Findings", "Gradient correlation (expected)"]
    heads += ["Best exposure offset", "Best target offset", "Brightness ratio"]
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
        rows.append(row + [""] * (len(heads) - len(row)))
    return f"""<section><h2>Sequences</h2>{_table(heads, rows, "dense")}
<p class="note">An offset counts as a finding only where it explains the frames clearly better than
none and than chance would: in a still scene every offset fits.</p></section>"""


def _pictures(dataset: Dataset, validation: Validation) -> str:
    """Return a frame of each of some sequences, those with findings first."""
    spoilt = {finding.sequence for finding in validation.findings}
    shown = sorted(validation.sequences, key=lambda check: check.name not in spoilt)
    articles = [_article(dataset, check) for check in shown[:SHOWN_SEQUENCES]]
    if not articles:
        return ""
    more = len(validation.sequences) - len(articles)
    note = f" {more:,} more sequences are not shown." if more else ""
    return f"""<section><h2>Pictures</h2>
<p class="note">The middle frame of a sequence: blurred, sharp, and threshold x the mean of the
spikes of the exposure, not stretched.{note}</p>
<div class="clips">{"".join(articles)}</div></section>"""


def _article(dataset: Dataset, check: SequenceCheck) -> str:
    """Return the pictures of a sequence, or why there are none."""
    try:
        clip, _ = dataset.inspect(check.split, check.sequence)
        if not clip.frames:
            raise ValueError("no frame has all of its files")
        frame = clip.frames[len(clip.frames) // 2]
        files = {piece.file for piece in frame.spikes}
        steps = {file: count for file, count in clip.steps.items() if file in files}
        clip = replace(clip, frames=(frame,), steps=steps)
        with clip.local() as here:
            cells = "".join(_cell(here, kind) for kind in KINDS)
        facts = f"frame {escape(frame.name)}; {escape(describe(clip.info))}"
    except (VrtSpikeError, ValueError) as error:
        cells, facts = "", escape(str(error))
    return f"""<article><h3>{escape(check.name)}</h3>
<div class="three">{cells}</div><p>{facts}</p></article>"""


def _cell(clip: Clip, kind: FrameKind | Literal["spikes"]) -> str:
    """Return one picture of a clip's only frame, or why there is none."""
    frame = clip.frames[0]
    if not getattr(frame, kind):
        return ""
    try:
        if kind != "spikes":
            image: Picture = read_frames(clip, kind)[0]
        else:
            image = _exposure_average(clip)
    except VrtSpikeError as error:
        return f"<figure><figcaption>{escape(str(error))}</figcaption></figure>"
    label = "spikes (TFP)" if kind == "spikes" else kind
    return (
        f"<figure><figcaption><b>{label}</b></figcaption>"
        f'<img alt="{label}" src="{thumbnail_uri(image)}"></figure>'
    )


def _exposure_average(clip: Clip) -> UInt8[np.ndarray, "h w"]:
    """Return threshold x the mean of the exposure's spikes of a clip's only frame, in 8 bits.

    Read in bounded memory: the exposure of a stream without frames is the whole recording.
    """
    spike, (start, stop) = clip.info.camera, clip.info.timeline.exposure
    total = np.zeros(spike.grid, np.int64)
    for spikes in iter_spikes(clip, 0, start, stop):
        total += spikes.sum(axis=0, dtype=np.int32)
    return to_picture(total * (spike.threshold / (stop - start)))


def thumbnail_uri(image: Picture) -> str:
    """Return a small JPEG of an RGB or gray image as a URI that holds it."""
    small = Image.fromarray(image)
    small.thumbnail(THUMBNAIL, Image.Resampling.BOX)
    file = io.BytesIO()
    small.save(file, format="JPEG", quality=85)
    return image_uri("jpeg", file.getvalue())


def _table(heads: Iterable[str], rows: Iterable[list[str]], style: str) -> str:
    """Return a table of text; the first cell of a row names it."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll tall"><table class="{style}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
