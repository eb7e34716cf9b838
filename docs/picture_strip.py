"""One picture of a frame as every method gives it: whole above, its hardest place close up below.

In: a panel, and names to write over its columns. Out: an encoded image of less than `MOST_BYTES`,
PNG if that is small enough and else JPEG. The place is the one where the blurred input differs most
from the sharp frame: it does not depend on any model.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from vrtspike.evaluation.results import Image, Panel, Score
from vrtspike.report.comparison import Place, hardest_places
from vrtspike.report.methods import is_model, method
from vrtspike.storage.csv_text import cell_text

FRAME = 360
"""Longest side of a frame in a strip."""
ZOOM = 3
"""How much larger than in the frame a pixel is in the close-up."""
NARROW = 120
"""Columns are at least so wide that a name is readable."""
GAP, LINE, SIZE = 6, 17, 13
QUALITIES = (90, 80, 70, 60, 50, 40, 30, 20, 10)
MOST_BYTES = 200_000
PAPER, INK, SOFT, BOX = (255, 255, 255), (22, 21, 15), (86, 85, 78), (255, 214, 0)


def write_strip(folder: Path, split: str, file: Path) -> tuple[Path, str] | None:
    """Write a strip of an evaluation's folder: the shown frame whose blurred input is worst.

    Returns the file, which has a suffix of its kind, and which frame it is; None without pictures.
    """
    psnr: dict[tuple[str, str], dict[str, float]] = {}
    for line in csv.DictReader((folder / "results.csv").read_text("utf-8").splitlines()):
        where = cell_text(line["sequence"]), cell_text(line["frame"])
        psnr.setdefault(where, {})[cell_text(line["method"])] = float(line["psnr"])
    place = folder / "samples" / split
    shown = [where for where in psnr if (place / where[0] / f"{where[1]}-sharp.png").is_file()]
    if not shown:
        return None
    sequence, frame = worst = min(shown, key=lambda where: psnr[where]["blurred"])
    names = ["blurred", "tfp", *filter(is_model, psnr[worst]), "sharp"]
    files = {n: place / sequence / f"{frame}-{n.replace('/', '-')}.png" for n in names}
    images = {n: np.asarray(PillowImage.open(path).convert("RGB")) for n, path in files.items()}
    scores = {name: Score(db, 0.0) for name, db in psnr[worst].items()}
    columns = {name: method(name).short for name in names}
    suffix, content = encoded(strip(Panel(sequence, frame, images, scores), columns))
    written = file.with_name(f"{file.name}.{suffix}")
    written.write_bytes(content)
    return written, f"{sequence}, frame {frame}"


def strip(panel: Panel, columns: Mapping[str, str]) -> Image:
    """Draw a panel's images beside each other; `columns` gives the heading of each method."""
    sharp = panel.images["sharp"]
    height, width = sharp.shape[:2]
    scale = min(1.0, FRAME / max(height, width))
    high, wide = (max(round(side * scale), 1) for side in (height, width))
    column = max(wide, NARROW)
    # The close-up is a square of the frame's own pixels, as wide as the frame above it.
    place = hardest_places(panel.images["blurred"], sharp, max(wide // ZOOM, 1), 1)[0]
    close = place.side * ZOOM
    top = 2 * LINE + GAP
    size = (len(columns) * (column + GAP) + GAP, top + high + GAP + close + GAP)
    canvas = PillowImage.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, (name, heading) in enumerate(columns.items()):
        left = GAP + number * (column + GAP)
        score = panel.scores.get(name)
        _write(draw, (left, GAP // 2), heading, column, INK)
        below = "ground truth" if score is None else f"{score.psnr:.2f} dB"
        _write(draw, (left, GAP // 2 + LINE), below, column, SOFT)
        image = PillowImage.fromarray(panel.images[name])
        at = left + (column - wide) // 2
        canvas.paste(image.resize((wide, high), PillowImage.Resampling.LANCZOS), (at, top))
        _outline(draw, place, scale, (at, top))
        canvas.paste(
            _close_up(image, place, close), (left + (column - close) // 2, top + high + GAP)
        )
    return np.asarray(canvas)


def encoded(image: Image) -> tuple[str, bytes]:
    """Return an image as (suffix, file), the best that is less than `MOST_BYTES`."""
    found = _encode(image, "PNG", optimize=True)
    if len(found) < MOST_BYTES:
        return "png", found
    for quality in QUALITIES:
        found = _encode(image, "JPEG", quality=quality, optimize=True)
        if len(found) < MOST_BYTES:
            break
    return "jpg", found


def _encode(image: Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(image).save(file, format=kind, **options)
    return file.getvalue()


def _close_up(image: PillowImage.Image, place: Place, side: int) -> PillowImage.Image:
    box = (place.left, place.top, place.left + place.side, place.top + place.side)
    return image.resize((side, side), PillowImage.Resampling.NEAREST, box=box)


def _outline(draw: ImageDraw.ImageDraw, place: Place, scale: float, at: Sequence[int]) -> None:
    left, top = (round(at[i] + side * scale) for i, side in enumerate((place.left, place.top)))
    side = round(place.side * scale)
    draw.rectangle((left, top, left + side - 1, top + side - 1), outline=BOX)


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    width: int,
    colour: tuple[int, int, int],
) -> None:
    """Write a line, cut to a width."""
    font = ImageFont.load_default(SIZE)
    short = text
    while short and draw.textlength(short, font=font) > width:
        short = short[:-2] + "…" if short.endswith("…") else short[:-1] + "…"
    draw.text(at, short, fill=colour, font=font)
