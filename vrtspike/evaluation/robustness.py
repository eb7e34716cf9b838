"""How far models depend on the spikes they get: the evaluation again, with disturbed spikes.

In: the dataset, the models that took part in an evaluation, and its `Results`. Out: `Robustness`.
Each model that takes spikes runs over the whole split once for each kind and level of disturbance
(`vrtspike.evaluation.corruptions`); what changes nothing is taken from the results. The model is
told what its user would know: a camera of a higher threshold, so `rate` voxels are scaled by it,
and nothing of the other disturbances.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vrtspike.config.evaluation import EvaluationSettings
from vrtspike.datasets.clip import Clip, read_frames, read_spikes_around
from vrtspike.datasets.index import Dataset
from vrtspike.errors import ConfigError
from vrtspike.evaluation.corruptions import (
    KINDS,
    Corruption,
    Kind,
    generator,
    levels_of,
    undisturbed,
)
from vrtspike.evaluation.curves import Level, Response, Robustness
from vrtspike.evaluation.results import Results, Score
from vrtspike.evaluation.run import restored_frames, scored_clips
from vrtspike.evaluation.scorer import SequenceScorer
from vrtspike.metrics.perceptual import LPIPS
from vrtspike.restoration.restorer import Restorer

log = logging.getLogger(__name__)

SEED = 0
"""Of the spikes that are dropped or added, and of the phases of a higher threshold."""

DISTURBANCES = tuple(
    Corruption(kind, level)
    for kind in KINDS
    for level in levels_of(kind)
    if level != undisturbed(kind)
)

Frame = tuple[str, str]
"""Names of a sequence and of a frame in it."""


def evaluate_robustness(
    dataset: Dataset | str | os.PathLike[str],
    models: Mapping[str, Restorer],
    results: Results,
    settings: EvaluationSettings,
    *,
    weights_dir: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Robustness:
    """Score the models of an evaluation with disturbed spikes.

    `results` are those of the same models and frames, with controls. `progress` hears of (done,
    total) frames, each counted once for every model and disturbance.
    """
    disturbed = check_robustness(models)
    clips = scored_clips(dataset, results.split, models)
    lpips = LPIPS(weights_dir).to(device) if settings.lpips else None
    total = sum(len(clip.frames) for clip in clips) * passes(models)
    tally, done = _Tally(), 0
    for clip in clips:
        with clip.local() as here:
            for name, restorer in disturbed.items():
                for disturbance in DISTURBANCES:
                    log.debug("%s, %s: %s", here.sequence, name, disturbance)
                    scorer = SequenceScorer(with_luma=settings.luma, lpips=lpips, device=device)
                    run = _Run(here, name, restorer, disturbance, tally)
                    for _ in run.score(settings, scorer):
                        done += 1
                        if progress is not None:
                            progress(done, total)
    threshold, references = _threshold(clips), _references(models)
    return Robustness(
        reference=references[0],
        references={name: results.over_frames(name) for name in references},
        responses=tuple(
            tally.response(name, kind, results.over_frames(name), threshold)
            for name in disturbed
            for kind in KINDS
        ),
        protocol=_protocol(threshold),
    )


def check_robustness(models: Mapping[str, Restorer]) -> dict[str, Restorer]:
    """Return the models that take spikes; none is an error."""
    disturbed = {name: restorer for name, restorer in models.items() if restorer.spikes is not None}
    if not disturbed:
        raise ConfigError(
            "disturbed spikes disturb no model without spikes",
            where="evaluation.robustness",
            got=f"models {', '.join(models)}" if models else "no model",
            expected="a model that takes spikes",
            fix="give one with --fused, or leave --robustness out",
        )
    return disturbed


def passes(models: Mapping[str, Restorer]) -> int:
    """Return how often the frames are gone through."""
    return sum(restorer.spikes is not None for restorer in models.values()) * len(DISTURBANCES)


@dataclass
class _Tally:
    """What was found of each model and disturbance: scores, and each frame's mean spikes."""

    scores: dict[tuple[str, Corruption], list[Score]] = field(default_factory=dict)
    rates: dict[tuple[str, Corruption], dict[Frame, float]] = field(default_factory=dict)
    own: dict[Frame, float] = field(default_factory=dict)
    """Mean spikes of frames as the camera gave them."""

    def response(self, name: str, kind: Kind, at_rest: Score, threshold: float | None) -> Response:
        """Return a model's scores at all levels of a kind, in charges if a threshold is given."""
        unit = threshold if kind == "threshold" and threshold is not None else 1.0
        levels = []
        for level in levels_of(kind):
            key = (name, Corruption(kind, level))
            if level == undisturbed(kind):
                levels.append(Level(level * unit, _mean(self.own), at_rest))
            else:
                mean = Score.mean(self.scores[key])
                levels.append(Level(level * unit, _mean(self.rates[key]), mean))
        return Response(name, kind, undisturbed(kind) * unit, tuple(levels))


@dataclass(frozen=True, eq=False)
class _Run:
    """One model on one sequence with one disturbance."""

    clip: Clip
    name: str
    restorer: Restorer
    disturbance: Corruption
    tally: _Tally

    def score(self, settings: EvaluationSettings, scorer: SequenceScorer) -> Iterator[None]:
        """Add the frames' scores to the tally; yield after each."""
        found = self.tally.scores.setdefault((self.name, self.disturbance), [])
        images = restored_frames(self.clip, self.name, self.restorer, settings, self._spikes)
        for index, image in enumerate(images):
            sharp = read_frames(self.clip, "sharp", index, index + 1)[0]
            found.append(scorer.score({self.name: image}, sharp)[self.name])
            yield

    def _spikes(self, clip: Clip, index: int) -> tuple[NDArray[np.bool_], float]:
        """Return a frame's disturbed spikes, and the threshold that the model is told."""
        timeline, frame = clip.info.timeline, (clip.sequence, clip.frames[index].name)
        around, start = read_spikes_around(clip, index, self.disturbance.reach)
        rng = generator(SEED, *frame, self.disturbance)
        spikes = self.disturbance.apply(around, start, timeline.steps_per_frame, rng)
        first, last = timeline.exposure
        rates = self.tally.rates.setdefault((self.name, self.disturbance), {})
        rates[frame] = float(spikes[first:last].mean())
        self.tally.own[frame] = float(around[start + first : start + last].mean())
        return spikes, clip.info.camera.threshold * self.disturbance.threshold_factor


def _mean(rates: Mapping[Frame, float]) -> float:
    return float(np.mean(list(rates.values())))


def _threshold(clips: tuple[Clip, ...]) -> float | None:
    """Return the threshold of all sequences; None where they differ."""
    found = {clip.info.camera.threshold for clip in clips}
    return found.pop() if len(found) == 1 else None


def _references(models: Mapping[str, Restorer]) -> list[str]:
    """Return the methods that see no spikes, the one that models are held against first."""
    return [*(name for name, restorer in models.items() if restorer.spikes is None), "blurred"]


def _protocol(threshold: float | None) -> dict[str, str]:
    """Describe the disturbances."""
    told = "voxels are normalised by it"
    return {
        "threshold": f"every n-th spike of each pixel and frame, from a random one on; {told}; "
        + ("charge" if threshold else "times each sequence's own, which differ"),
        "time": "steps by which the spikes are later in the stream than the frame says; where the "
        "stream ends its nearest steps are mirrored",
        "space": "pixels of the spike grid by which spikes lie too far down and to the right; the "
        "edge is repeated",
        "dropped": "probability with which each spike is lost, independently",
        "noise": "probability with which each pixel fires in each step, independently of the light",
        "silent": "no spikes at all",
        "seed": f"{SEED}; a frame's disturbance depends on its sequence, name, kind and level only",
        "rate": "spikes per pixel and step of the exposure, mean over frames",
        "falls_at": "level at which PSNR falls under the reference's, linear between levels; null: "
        "at none that was tried",
    }
