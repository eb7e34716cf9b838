"""The picture part of a report: each shown frame as every method gives it.

In: panels (one frame of a sequence, by method). Out: HTML, and the CSS classes that hold each image
once. A panel has a slider that compares any two images, then a grid: the frame, the places where
the blurred input is farthest from the sharp frame, and the colour-coded error of each method.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from vrtspike.evaluation.results import Panel
from vrtspike.report.comparison import Place, data_uri, error_map, error_of, hardest_places
from vrtspike.report.methods import UNSHOWN, main_model, method
from vrtspike.report.text import escape

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
    """The HTML and CSS of one panel."""

    def __init__(self, number: int, panel: Panel) -> None:
        self.number, self.panel = number, panel
        self.shown = [name for name in panel.images if name not in UNSHOWN]
        self.height, self.width = panel.images["sharp"].shape[:2]
        side = min(self.height, self.width) // CROP_SHARE
        blurred, sharp = panel.images["blurred"], panel.images["sharp"]
        self.places = hardest_places(blurred, sharp, max(side, 8), PLACES)
        error = error_of(blurred, sharp)
        self.full = max(float(np.percentile(error, 99.5)), 8.0)

    def css(self) -> str:
        """Return one rule for each image, so that every image is in the page once."""
        sharp = self.panel.images["sharp"]
        rules = []
        for name in self.shown:
            image = self.panel.images[name]
            rules.append(self._rule(self._class(name), data_uri(image)))
            if name != "sharp":
                coloured = error_map(image, sharp, self.full)
                if self.width > WIDE:
                    coloured = coloured[::2, ::2]
                rules.append(self._rule(self._class(name, "error"), data_uri(coloured)))
        pixels = "pixelated" if self.width < SMALL else "auto"
        rules.append(f"#panel-{self.number} .image {{ image-rendering: {pixels}; }}")
        return "\n".join(rules)

    def html(self) -> str:
        """Return the panel."""
        blurred = self.panel.scores["blurred"]
        stage = min(max(self.width, STAGE[0]), STAGE[1])
        style = f"--ratio: {self.width} / {self.height}; --stage: {stage}px"
        return f"""
<article class="panel" id="panel-{self.number}" style="{style}">
  <header><h3>{escape(self.panel.sequence)}</h3>
  <p>frame {escape(self.panel.frame)}, blurred input {blurred.psnr:.2f} dB</p></header>
  {self._compare()}
  <div class="scroll"><div class="grid" style="--columns: {len(self.shown)}">
    {self._row("Frame", self._frame)}
    {self._close_ups()}
    {self._row("Error", self._error)}
  </div></div>
</article>"""

    def _class(self, name: str, kind: str = "frame") -> str:
        return f"im-{self.number}-{self.shown.index(name)}-{kind}"

    @staticmethod
    def _rule(style: str, uri: str) -> str:
        return f".{style} {{ background-image: url({uri}); }}"

    def _compare(self) -> str:
        """Return two images with a slider between them."""
        right = main_model(self.panel.scores) or "sharp"

        def choices(side: str, chosen: str) -> str:
            options = "".join(
                f'<option value="{self._class(name)}"{" selected" if name == chosen else ""}>'
                f"{escape(method(name).name)}</option>"
                for name in self.shown
            )
            return f'<label>{side} <select data-side="{side.lower()}">{options}</select></label>'

        return f"""<div class="compare" style="--split: 50%">
    <div class="stage">
      <div class="image layer left {self._class("blurred")}"></div>
      <div class="image layer right {self._class(right)}"></div>
      <div class="divider"></div>
      <input type="range" min="0" max="100" value="50" aria-label="where the two images meet">
    </div>
    <div class="choices">{choices("Left", "blurred")}{choices("Right", right)}
      <button type="button" class="flicker" aria-pressed="false">Flicker</button></div>
  </div>"""

    def _row(self, label: str, cell: Callable[[str], str]) -> str:
        return f'<div class="row-label">{label}</div>' + "".join(cell(n) for n in self.shown)

    def _frame(self, name: str) -> str:
        """Return a whole frame, with a box around each place that is shown close up."""
        boxes = "".join(self._box(number, place) for number, place in enumerate(self.places, 1))
        score = self.panel.scores.get(name)
        caption = f"{score.psnr:.2f} dB" if score else "the truth"
        look = method(name)
        return f"""<figure class="style-{look.style}"><figcaption><b>{escape(look.short)}</b>
      <span>{caption}</span></figcaption>
      <div class="image whole {self._class(name)}" role="img" aria-label="{escape(look.name)}">
      {boxes}</div></figure>"""

    def _box(self, number: int, place: Place) -> str:
        style = (
            f"left:{100 * place.left / self.width:.3f}%;top:{100 * place.top / self.height:.3f}%;"
            f"width:{100 * place.side / self.width:.3f}%;"
            f"height:{100 * place.side / self.height:.3f}%"
        )
        return f'<div class="box" style="{style}"><b>{number}</b></div>'

    def _close_ups(self) -> str:
        """Return a row for each place."""
        return "\n".join(
            self._row(f"Place {number}", partial(self._close_up, number, place))
            for number, place in enumerate(self.places, 1)
        )

    def _close_up(self, number: int, place: Place, name: str) -> str:
        label = f"{method(name).name}, place {number}"
        return (
            f'<div class="image close {self._class(name)}" role="img" '
            f'aria-label="{escape(label)}" style="{self._zoom(place)}"></div>'
        )

    def _zoom(self, place: Place) -> str:
        """Return the style that enlarges a square of the image to the whole element."""
        across = 100 * place.left / max(self.width - place.side, 1)
        down = 100 * place.top / max(self.height - place.side, 1)
        wide, high = 100 * self.width / place.side, 100 * self.height / place.side
        return (
            f"background-size:{wide:.3f}% {high:.3f}%;background-position:{across:.3f}% {down:.3f}%"
        )

    def _error(self, name: str) -> str:
        """Return a method's error map; in the column of the sharp frame the colours' scale."""
        if name == "sharp":
            return (
                '<div class="scale"><div class="ramp"></div>'
                f"<span>0</span><span>{self.full:.0f} of 255</span></div>"
            )
        label = f"{method(name).name}, absolute error"
        return (
            f'<div class="image whole {self._class(name, "error")}" role="img" '
            f'aria-label="{escape(label)}"></div>'
        )
