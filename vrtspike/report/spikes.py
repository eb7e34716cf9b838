"""Pictures of a spike stream: what a user looks at before trusting its geometry.

In: a `SpikeStream` of any format, of which only the steps that a picture shows are read, in bounded
memory. Out: gray images, uint8, by name, and a chart
of its intervals. Intensities are threshold x rate in [0, 1], not stretched,
so that a wrong threshold shows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.report.charts import bar_chart, svg_file
from vrtspike.spikes.gray import gray_on_grid
from vrtspike.spikes.intervals import IntervalFigures, histogram_bars
from vrtspike.spikes.source import file_size
from vrtspike.spikes.stream import SpikeStream
from vrtspike.spikes.voxels import bin_steps
from vrtspike.storage.atomic import whole_file
from vrtspike.video.image_file import read_image

Picture = UInt8[np.ndarray, "h w"]
LABEL = 18
"""Rows of a label in a sheet."""
FIRST_LOOK = 16
"""Steps that are read at first on each side of an instant; most pixels fire within them."""


def preview(
    stream: SpikeStream,
    *,
    threshold: float | None = None,
    center: int | None = None,
    window: int = 32,
    bins: int = 8,
    frame: Path | None = None,
) -> dict[str, Picture]:
    """Return the pictures `tfp`, `tfi`, `bits` (one step) and `voxels` (a sheet of all bins).

    The threshold is the stream's unless given; `center` is a step, the stream's middle if not
    given; TFP and voxels are of the `window` steps around it, as far as the stream goes. With a
    `frame` of the same instant there is a picture `side_by_side`: its gray on the spike grid, TFP
    and TFI (one that is no whole number of times finer is a ConfigError).
    """
    threshold = usable_threshold(stream, threshold)
    if not 0 <= (center := len(stream) // 2 if center is None else center) <= len(stream):
        raise ConfigError("the centre leaves the stream", got=center, expected=f"0-{len(stream)}")
    if window < 1:
        raise ConfigError("the window must hold a step", got=window)
    start = max(center - window // 2, 0)
    stop = min(center - window // 2 + window, len(stream))
    if start >= stop:
        raise ConfigError(
            "the window holds no step of the stream", got=f"{window} steps around {center}"
        )
    edges = start + np.cumsum([0, *bin_steps(stop - start, min(bins, stop - start))])
    voxels = [average_image(stream, int(a), int(b), threshold) for a, b in pairwise(edges)]
    bits = min(center, len(stream) - 1)
    pictures = {
        "tfp": to_picture(average_image(stream, start, stop, threshold)),
        "tfi": to_picture(interval_image(stream, center, threshold)),
        "bits": to_picture(stream[bits : bits + 1][0].astype(np.float32)),
        "voxels": contact_sheet(
            np.stack(voxels),
            [f"bin {i}: steps {a}-{b - 1}" for i, (a, b) in enumerate(pairwise(edges), 1)],
        ),
    }
    if frame is not None:
        gray = _frame_on_grid(frame, (stream.height, stream.width))
        pictures["side_by_side"] = side_by_side([gray, pictures["tfp"], pictures["tfi"]])
    return pictures


def compare(pictures: dict[str, Picture], frame: Path) -> dict[str, float]:
    """Return the PSNR (dB) of the pictures that show brightness against a frame's gray.

    A frame that is no whole number of times finer than the spike grid is a ConfigError.
    """
    sharp = _frame_on_grid(frame, pictures["tfp"].shape).astype(np.float64)
    found = {}
    for name in ("tfp", "tfi"):
        error = np.square(pictures[name] - sharp).mean()
        found[name] = float(10 * np.log10(255.0**2 / max(error, 1e-9)))
    return found


def write_preview(
    pictures: Mapping[str, Picture],
    folder: str | os.PathLike[str],
    charts: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write pictures as PNG and charts as SVG, one file a name, and return the files."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError("the output must be a folder", where=folder, got="a file") from error
    except OSError as error:
        raise DataFormatError(
            f"cannot make the folder: {error.strerror}", where=folder, fix="write elsewhere"
        ) from error
    paths = []
    for name, picture in pictures.items():
        paths.append(folder / f"{name}.png")
        with whole_file(paths[-1]) as temporary:
            Image.fromarray(picture).save(temporary, "PNG")
    for name, chart in (charts or {}).items():
        paths.append(folder / f"{name}.svg")
        with whole_file(paths[-1]) as temporary:
            temporary.write_text(chart, encoding="utf-8")
    return paths


def usable_threshold(stream: SpikeStream, threshold: float | None) -> float:
    """Return the threshold that was given, or else the stream's."""
    threshold = stream.threshold if threshold is None else threshold
    if threshold is None:
        raise ConfigError("no threshold to scale the spikes with", fix="give --threshold")
    if not (math.isfinite(threshold) and threshold > 0):
        raise ConfigError("threshold must be positive and finite", got=threshold)
    return threshold


def average_image(
    stream: SpikeStream, start: int, stop: int, threshold: float
) -> Float[np.ndarray, "h w"]:
    """Return the TFP image of the steps `[start, stop)`, which must hold one, read in pieces."""
    total = np.zeros((stream.height, stream.width), np.int64)
    for _, piece in stream.pieces(start, stop):
        total += piece.sum(axis=0, dtype=np.int32)
    return np.asarray(total.astype(np.float32) * np.float32(threshold / (stop - start)))


def interval_image(stream: SpikeStream, step: int, threshold: float) -> Float[np.ndarray, "h w"]:
    """Return the TFI image of an instant (see `vrtspike.spikes.reconstruct.tfi`), read in part.

    Steps are read outwards until every pixel has its spike on both sides, but no further than
    where threshold / interval is less than half of a gray level and shows as 0 anyway.
    """
    reach = math.ceil(2 * 255 * threshold) + 1
    elapsed, fired_before = _until_spike(stream, step, min(step, reach), forward=False)
    remaining, fires_after = _until_spike(
        stream, step, min(len(stream) - step, reach), forward=True
    )
    interval = np.maximum(elapsed + remaining + fires_after, 1)
    image = np.where(fired_before | fires_after, np.float32(threshold) / interval, 0.0)
    return image.astype(np.float32)


def contact_sheet(
    images: Float[np.ndarray, "k h w"], labels: Sequence[str] = (), gap: int = 4
) -> Picture:
    """Lay images out in rows on white, in reading order, about as wide as high.

    Labels stand over the images; columns are wide enough for them.
    """
    pictures = [to_picture(image) for image in images]
    if labels:
        font = ImageFont.load_default(12)
        height, width = pictures[0].shape
        size = (max(width, *(math.ceil(font.getlength(t)) for t in labels)), LABEL + height)
        for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
            cell = Image.new("L", size, 255)
            ImageDraw.Draw(cell).text((0, 1), label, 0, font)
            cell.paste(Image.fromarray(picture), (0, LABEL))
            pictures[i] = np.asarray(cell)
    height, width = pictures[0].shape
    columns = min(len(pictures), max(1, round((len(pictures) * height / width) ** 0.5)))
    return _sheet(pictures, columns, gap)


def side_by_side(pictures: Sequence[Picture], gap: int = 4) -> Picture:
    """Lay pictures of one size out in one row on white."""
    return _sheet(pictures, len(pictures), gap)


def interval_chart(figures: IntervalFigures) -> str:
    """Return the share of the intervals by their length as SVG, with the figures above."""
    lines = [
        f"{figures.steps:,} steps, mean rate {figures.mean_rate:.4f}, highest rate of a pixel "
        f"{figures.highest_rate:.4f}",
        f"pixels that never fire: {100 * figures.never_fired:.2f}%",
    ]
    if figures.mean_isi is None:
        return svg_file({}, [("", line) for line in [*lines, "no pixel fired twice"]])
    pixel = "" if figures.pixel_isi_cv is None else f", of a pixel {figures.pixel_isi_cv:.3f}"
    lines.append(
        f"interval: mean {figures.mean_isi:.2f}, shortest {figures.shortest_isi}, "
        f"coefficient of variation {figures.isi_cv:.3f}{pixel}"
    )
    size, shares = histogram_bars(figures.histogram)
    names = [str(1 + bar * size) for bar in range(len(shares))]
    names[-1] += "+"
    what = "interval between spikes, steps" + (f" (from, {size} a bar)" * (size > 1))
    chart = bar_chart(shares.tolist(), names, x_name=what)
    return svg_file({"Share of the intervals by length": chart}, [("", line) for line in lines])


def to_picture(intensity: Float[np.ndarray, "h w"]) -> Picture:
    """Round [0, 1] to 8 bits, clipping what is beyond."""
    return np.rint(intensity * 255.0).clip(0, 255).astype(np.uint8)


def _frame_on_grid(frame: Path, grid: tuple[int, ...]) -> Picture:
    """Return a frame's gray on the spike grid; nothing is stretched."""
    file_size(frame, "file")
    rgb = read_image(frame)
    (height, width), (rows, columns) = rgb.shape[:2], grid
    factor = height // rows
    if factor < 1 or (height, width) != (factor * rows, factor * columns):
        raise ConfigError(
            "the frame is no whole number of times finer than the spike grid",
            where=frame,
            got=f"a frame of {height}x{width} beside spikes of {rows}x{columns}",
            fix="give the frame of these spikes, or correct height and width",
        )
    return to_picture(gray_on_grid(rgb, rows, columns))


def _sheet(pictures: Sequence[Picture], columns: int, gap: int) -> Picture:
    """Lay pictures of one size out on white."""
    height, width = pictures[0].shape
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[y : y + height, x : x + width] = picture
    return sheet


def _until_spike(
    stream: SpikeStream, step: int, most: int, *, forward: bool
) -> tuple[Int[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Count each pixel's steps without a spike from an instant on, `most` of them at most.

    Returns the counts, and which pixels fired then.
    """
    count = np.full((stream.height, stream.width), most, np.int64)
    fired = np.zeros(count.shape, np.bool_)
    passed, size = 0, min(FIRST_LOOK, stream.piece_steps)
    while passed < most and not fired.all():
        size = min(size, most - passed)
        if forward:
            piece = stream[step + passed : step + passed + size]
        else:
            piece = stream[step - passed - size : step - passed][::-1]
        now = piece.any(axis=0) & ~fired
        count[now] = passed + piece.argmax(axis=0)[now]
        fired |= now
        passed, size = passed + size, min(2 * size, stream.piece_steps)
    return count, fired
