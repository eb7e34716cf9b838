"""Pictures that compare: where to look, how far off a frame is, and images as data URIs.

In: uint8 RGB images `(h, w, 3)`. Out: places, colour-coded error maps, and what HTML embeds.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from markupsafe import Markup
from PIL import Image as PillowImage

from vrtspike.report.page import image_uri

Image = UInt8[np.ndarray, "h w 3"]

LOSSLESS_PIXELS = 512 * 512
"""Larger images are embedded as WebP of quality 88, or a report would not fit in a browser."""

# Black, violet, red, orange, pale yellow: even steps of lightness, readable without colour vision.
ERROR_COLOURS = np.array(
    [(0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)]
)


@dataclass(frozen=True)
class Place:
    """A square window of an image."""

    top: int
    left: int
    side: int


def hardest_places(blurred: Image, sharp: Image, side: int, most: int) -> list[Place]:
    """Return the squares in which the blurred image differs most from the sharp one.

    The hardest one first; none overlaps another, and a place where nothing differs is none.
    """
    side = min(side, *sharp.shape[:2])
    error = error_of(blurred, sharp).astype(np.float64)
    total = np.pad(error.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    places: list[Place] = []
    # A millionth of a gray level is what rounding leaves.
    while len(places) < most and (sums.max() > 1e-6 or not places):
        top, left = (int(at) for at in np.unravel_index(int(sums.argmax()), sums.shape))
        places.append(Place(top, left, side))
        sums[max(top - side + 1, 0) : top + side, max(left - side + 1, 0) : left + side] = 0
    return places


def error_of(image: Image, sharp: Image) -> Float[np.ndarray, "h w"]:
    """Return the absolute difference of each pixel, the mean of its channels, 0 to 255."""
    difference = np.abs(image.astype(np.float32) - sharp.astype(np.float32))
    return np.asarray(difference.mean(axis=-1))


def error_map(image: Image, sharp: Image, full: float) -> Image:
    """Colour-code the absolute difference; `full` is the difference of the brightest colour."""
    at = (error_of(image, sharp) / max(full, 1e-6)).clip(0, 1) * (len(ERROR_COLOURS) - 1)
    knots = np.arange(len(ERROR_COLOURS))
    channels = [np.interp(at, knots, ERROR_COLOURS[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def data_uri(image: Image) -> Markup:
    """Return an image as a URI that holds it."""
    lossless = image.shape[0] * image.shape[1] <= LOSSLESS_PIXELS
    file = io.BytesIO()
    if lossless:
        PillowImage.fromarray(image).save(file, format="PNG", optimize=True)
    else:
        PillowImage.fromarray(image).save(file, format="WEBP", quality=88)
    kind = "png" if lossless else "webp"
    return image_uri(kind, file.getvalue())
