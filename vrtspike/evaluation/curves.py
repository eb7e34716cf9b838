"""How models answer to disturbed spikes: scores by kind and level, and where spikes stop paying.

A model falls under its reference (the model without spikes, or the blurred input where there is no
such model) at the level at which its PSNR, linear between the levels that were tried, crosses the
reference's. Offsets in time have two sides, the other kinds one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from vrtspike.evaluation.corruptions import Kind
from vrtspike.evaluation.score import METRICS, Score
from vrtspike.storage.csv_text import csv_cell


@dataclass(frozen=True)
class Level:
    """A model's mean score at one level, and the spikes per pixel and step of the exposure."""

    level: float
    rate: float
    score: Score


@dataclass(frozen=True)
class Response:
    """A model's scores at the levels of one kind of disturbance, in ascending order."""

    model: str
    kind: Kind
    undisturbed: float
    levels: tuple[Level, ...]

    def falls_at(self, psnr: float) -> dict[str, float | None]:
        """Return, by side, the level at which the model's PSNR falls under `psnr`.

        The undisturbed level where it is under it from the start; None: at no level tried. Between
        spikes and none there is nothing, so the level of no spikes is not taken for a scale.
        """
        if self.kind == "silent":
            return {"more": next((at.level for at in self.levels if at.score.psnr < psnr), None)}
        later = [at for at in self.levels if at.level >= self.undisturbed]
        earlier = [at for at in reversed(self.levels) if at.level <= self.undisturbed]
        if len(earlier) > 1:
            return {"earlier": _crossing(earlier, psnr), "later": _crossing(later, psnr)}
        return {"more": _crossing(later, psnr)}

    def as_dict(self, psnr: float) -> dict[str, Any]:
        """Return what results.json holds."""
        levels = [{"level": at.level, "rate": at.rate, **at.score.as_dict()} for at in self.levels]
        return {
            "undisturbed": self.undisturbed,
            "levels": levels,
            "falls_at": self.falls_at(psnr),
        }


@dataclass(frozen=True)
class Robustness:
    """The responses of all models that take spikes, and what they are held against."""

    reference: str
    """Method that a model falls under: the model without spikes, or the blurred input."""
    references: Mapping[str, Score]
    """Means of the methods that do not see spikes, `reference` among them."""
    responses: tuple[Response, ...]
    protocol: Mapping[str, str]

    @property
    def models(self) -> list[str]:
        """List the models that were disturbed."""
        return list(dict.fromkeys(response.model for response in self.responses))

    @property
    def kinds(self) -> list[Kind]:
        """List the kinds of disturbance that were tried."""
        return list(dict.fromkeys(response.kind for response in self.responses))

    def of(self, kind: Kind) -> list[Response]:
        """Return the responses of every model to one kind."""
        return [response for response in self.responses if response.kind == kind]

    def falls_at(self, response: Response) -> dict[str, float | None]:
        """Return where a model falls under the reference, by side."""
        return response.falls_at(self.references[self.reference].psnr)

    def as_dict(self) -> dict[str, Any]:
        """Return what results.json holds."""
        psnr = self.references[self.reference].psnr
        return {
            "protocol": dict(self.protocol),
            "reference": self.reference,
            "references": {name: score.as_dict() for name, score in self.references.items()},
            "models": {
                model: {r.kind: r.as_dict(psnr) for r in self.responses if r.model == model}
                for model in self.models
            },
        }

    def csv(self, split: str) -> str:
        """Return one line for each model, kind and level."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["split", "model", "kind", "level", "rate", *METRICS])
        for response in self.responses:
            for at in response.levels:
                score = at.score.as_dict()
                numbers = ["" if score[m] is None else f"{score[m]:.6f}" for m in METRICS]
                where = (split, response.model, response.kind, f"{at.level:g}", f"{at.rate:.6f}")
                rows.writerow([*map(csv_cell, where), *numbers])
        return text.getvalue()


def _crossing(levels: Sequence[Level], psnr: float) -> float | None:
    """Return where the PSNR first falls under a value, going away from the first level."""
    if levels[0].score.psnr < psnr:
        return levels[0].level
    for near, far in pairwise(levels):
        if far.score.psnr < psnr:
            share = (near.score.psnr - psnr) / (near.score.psnr - far.score.psnr)
            return near.level + share * (far.level - near.level)
    return None
