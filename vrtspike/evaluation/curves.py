"""Scores of models under corrupted spikes, and the level at which spikes stop being useful.

The reference is the model without spikes, or the blurred input if there is no such model. A model
falls below it at the level where its PSNR, interpolated linearly between the tested levels, crosses
the PSNR of the reference. Time offsets have two sides (earlier, later), other kinds have one.
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
    """The mean score of a model at one level of corruption.

    `rate`: mean spikes per pixel and step of the exposure.
    """

    level: float
    rate: float
    score: Score


@dataclass(frozen=True)
class Response:
    """The scores of a model for one kind of corruption, by ascending level.

    `undisturbed` is the level that changes nothing.
    """

    model: str
    kind: Kind
    undisturbed: float
    levels: tuple[Level, ...]

    def falls_at(self, psnr: float) -> dict[str, float | None]:
        """Return, for each side, the level at which the PSNR of the model falls below `psnr` (dB).

        This is the undisturbed level if the PSNR is below from the start, and None if it is not
        below at any tested level. Kind `silent` has only spikes or no spikes, so its levels are not
        interpolated.
        """
        if self.kind == "silent":
            return {"more": next((at.level for at in self.levels if at.score.psnr < psnr), None)}
        later = [at for at in self.levels if at.level >= self.undisturbed]
        earlier = [at for at in reversed(self.levels) if at.level <= self.undisturbed]
        if len(earlier) > 1:
            return {"earlier": _crossing(earlier, psnr), "later": _crossing(later, psnr)}
        return {"more": _crossing(later, psnr)}

    def as_dict(self, psnr: float) -> dict[str, Any]:
        """Return the entry in results.json; `psnr` is that of the reference."""
        levels = [{"level": at.level, "rate": at.rate, **at.score.as_dict()} for at in self.levels]
        return {
            "undisturbed": self.undisturbed,
            "levels": levels,
            "falls_at": self.falls_at(psnr),
        }


@dataclass(frozen=True)
class Robustness:
    """The responses of all models that use spikes, and the methods to compare them with."""

    reference: str
    """The method to compare with: the model without spikes, or the blurred input."""
    references: Mapping[str, Score]
    """Mean scores of all methods that use no spikes, including `reference`."""
    responses: tuple[Response, ...]
    protocol: Mapping[str, str]

    @property
    def models(self) -> list[str]:
        """List the models that use spikes."""
        return list(dict.fromkeys(response.model for response in self.responses))

    @property
    def kinds(self) -> list[Kind]:
        """List the kinds of corruption."""
        return list(dict.fromkeys(response.kind for response in self.responses))

    def of(self, kind: Kind) -> list[Response]:
        """Return the responses of all models to one kind."""
        return [response for response in self.responses if response.kind == kind]

    def falls_at(self, response: Response) -> dict[str, float | None]:
        """Return, for each side, the level at which a model falls below the reference."""
        return response.falls_at(self.references[self.reference].psnr)

    def as_dict(self) -> dict[str, Any]:
        """Return the entry `robustness` of results.json."""
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
        """Return a CSV table with a row for each model, kind and level."""
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
    """Return the first level, in the given order, at which the PSNR falls below `psnr`."""
    if levels[0].score.psnr < psnr:
        return levels[0].level
    for near, far in pairwise(levels):
        if far.score.psnr < psnr:
            share = (near.score.psnr - psnr) / (near.score.psnr - far.score.psnr)
            return near.level + share * (far.level - near.level)
    return None
