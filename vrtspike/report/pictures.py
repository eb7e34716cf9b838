"""The picture part of a report: each shown frame as every method gives it.

In: panels (one frame of a sequence, by method). Out: what the template shows of them, and the CSS
rules that hold each image once. A panel has a slider that compares any two images, then a grid: the
frame, the places where the blurred input is farthest from the sharp frame, and the colour-coded
error of each method.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from vrtspike.evaluation.results import Panel
from vrtspike.report.comparison import Image, Place, data_uri, error_map, error_of, hardest_places
from vrtspike.report.methods import UNSHOWN, Method, main_model, methods

CROP_SHARE = 4
"""The enlarged place is this part of the frame's shorter side."""
PLACES = 3
"""Most places of a frame that are enlarged."""
SMALL = 400
"""Frames narrower than this are shown with their pixels, not smoothed."""
WIDE = 1000
"""Error maps of wider frames are shown at half their size: they are small in the page."""
STAGE = (480, 960)
"""Least and greatest width of the two images that a reader compares."""


class PanelPage:
    """What the template shows of one panel."""

    def __init__(
        self, number: int, panel: Panel, looks: Mapping[str, Method] | None = None
    ) -> None:
        self.number, self.sequence, self.frame = number, panel.sequence, panel.frame
        self.images, self.scores = panel.images, panel.scores
        looks = {**methods(panel.images), **(looks or {})}
        self.shown = {name: looks[name] for name in panel.images if name not in UNSHOWN}
        self.right = main_model(panel.scores) or "sharp"
        self.height, self.width = panel.images["sharp"].shape[:2]
        self.stage = min(max(self.width, STAGE[0]), STAGE[1])
        side = min(self.height, self.width) // CROP_SHARE
        blurred, sharp = panel.images["blurred"], panel.images["sharp"]
        self.places = hardest_places(blurred, sharp, max(side, 8), PLACES)
        self.full = max(float(np.percentile(error_of(blurred, sharp), 99.5)), 8.0)

    def rules(self) -> Markup:
        """Return one CSS rule for each image, so that every image is in the page once."""
        sharp, rules = self.images["sharp"], Markup()
        for name in self.shown:
            image = self.images[name]
            rules += self._rule(self.style(name), image)
            if name != "sharp":
                coloured = error_map(image, sharp, self.full)
                if self.width > WIDE:
                    coloured = coloured[::2, ::2]
                rules += self._rule(self.style(name, "error"), coloured)
        pixels = "pixelated" if self.width < SMALL else "auto"
        rule = Markup("#panel-{} .image {{ image-rendering: {}; }}\n")
        return rules + rule.format(self.number, pixels)

    def style(self, name: str, kind: str = "frame") -> str:
        """Return the CSS class of an image."""
        return f"im-{self.number}-{list(self.shown).index(name)}-{kind}"

    @staticmethod
    def _rule(style: str, image: Image) -> Markup:
        return Markup(".{} {{ background-image: url({}); }}\n").format(style, data_uri(image))

    def box(self, place: Place) -> str:
        """Return the style of the box around a place."""
        shares = {
            "left": place.left / self.width,
            "top": place.top / self.height,
            "width": place.side / self.width,
            "height": place.side / self.height,
        }
        return ";".join(f"{name}:{100 * share:.3f}%" for name, share in shares.items())

    def zoom(self, place: Place) -> str:
        """Return the style that enlarges a square of the image to the whole element."""
        across = 100 * place.left / max(self.width - place.side, 1)
        down = 100 * place.top / max(self.height - place.side, 1)
        wide, high = 100 * self.width / place.side, 100 * self.height / place.side
        return (
            f"background-size:{wide:.3f}% {high:.3f}%;background-position:{across:.3f}% {down:.3f}%"
        )
