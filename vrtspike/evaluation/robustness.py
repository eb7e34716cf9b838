"""Robustness: evaluate models again with corrupted spikes.

In: the dataset and the models of an evaluation, and its `Results`. Out: `Robustness`. Each model
that uses spikes restores the whole split once for each kind and level of corruption
(`vrtspike.evaluation.corruptions`); the scores at the undisturbed level are taken from the results.
The model gets the information that a user would have: the higher threshold, by which `rate` voxels
are scaled, but nothing about other corruptions.
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
"""Seed of lost and added spikes, and of the first spike that a higher threshold keeps."""

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
    """Score the models of an evaluation with corrupted spikes.

    `results`: the evaluation of the same models and frames, with controls. `weights_dir`: folder of
    LPIPS' weights. Scores are computed on `device`; models run where they are. `progress` is called
    with (done, total) frames; each frame counts once for each model and corruption. Raises
    ConfigError if no model uses spikes.
    """
    disturbed = check_robustness(models)
    clips = scored_clips(dataset, results.split, models)
    lpips = LPIPS(weights_dir).to(device) if settings.lpips else None
    total = sum(len(clip.frames) for clip in clips) * passes(models)
    tally, done = _Tally(), 0
    for clip in clips:
        with clip.local() as here:
            for name, restorer in disturbed.items():
                for corruption in DISTURBANCES:
                    log.debug("%s, %s: %s", here.sequence, name, corruption)
                    scorer = SequenceScorer(with_luma=settings.luma, lpips=lpips, device=device)
                    run = _Run(here, name, restorer, corruption, tally)
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
    """Return the models that use spikes; raise ConfigError if there are none."""
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
    """Return how many times `evaluate_robustness` restores every frame."""
    return sum(restorer.spikes is not None for restorer in models.values()) * len(DISTURBANCES)


@dataclass
class _Tally:
    """Scores and spike rates of the frames so far, by model and corruption."""

    scores: dict[tuple[str, Corruption], list[Score]] = field(default_factory=dict)
    rates: dict[tuple[str, Corruption], dict[Frame, float]] = field(default_factory=dict)
    uncorrupted: dict[Frame, float] = field(default_factory=dict)
    """Spike rates of the frames without corruption."""

    def response(
        self, name: str, kind: Kind, uncorrupted_score: Score, threshold: float | None
    ) -> Response:
        """Return a model's scores at all levels of a kind.

        `threshold`: the camera's; if it is given, levels of kind `threshold` are multiplied by it.
        """
        unit = threshold if kind == "threshold" and threshold is not None else 1.0
        levels = []
        for level in levels_of(kind):
            key = (name, Corruption(kind, level))
            if level == undisturbed(kind):
                levels.append(Level(level * unit, _mean(self.uncorrupted), uncorrupted_score))
            else:
                mean = Score.mean(self.scores[key])
                levels.append(Level(level * unit, _mean(self.rates[key]), mean))
        return Response(name, kind, undisturbed(kind) * unit, tuple(levels))


@dataclass(frozen=True, eq=False)
class _Run:
    """One model on one sequence with one corruption."""

    clip: Clip
    name: str
    restorer: Restorer
    corruption: Corruption
    tally: _Tally

    def score(self, settings: EvaluationSettings, scorer: SequenceScorer) -> Iterator[None]:
        """Add the score of each frame to the tally; yield after each frame."""
        scores = self.tally.scores.setdefault((self.name, self.corruption), [])
        images = restored_frames(self.clip, self.name, self.restorer, settings, self._spikes)
        for index, image in enumerate(images):
            sharp = read_frames(self.clip, "sharp", index, index + 1)[0]
            scores.append(scorer.score({self.name: image}, sharp)[self.name])
            yield

    def _spikes(self, clip: Clip, index: int) -> tuple[NDArray[np.bool_], float]:
        """Return a frame's corrupted spikes, and the threshold that the model gets."""
        timeline, frame = clip.info.timeline, (clip.sequence, clip.frames[index].name)
        around, start = read_spikes_around(clip, index, self.corruption.reach)
        rng = generator(SEED, *frame, self.corruption)
        spikes = self.corruption.apply(around, start, timeline.steps_per_frame, rng)
        first, last = timeline.exposure
        rates = self.tally.rates.setdefault((self.name, self.corruption), {})
        rates[frame] = float(spikes[first:last].mean())
        self.tally.uncorrupted[frame] = float(around[start + first : start + last].mean())
        return spikes, clip.info.camera.threshold * self.corruption.threshold_factor


def _mean(rates: Mapping[Frame, float]) -> float:
    return float(np.mean(list(rates.values())))


def _threshold(clips: tuple[Clip, ...]) -> float | None:
    """Return the threshold of all sequences; None if they differ."""
    thresholds = {clip.info.camera.threshold for clip in clips}
    return thresholds.pop() if len(thresholds) == 1 else None


def _references(models: Mapping[str, Restorer]) -> list[str]:
    """Return the methods that use no spikes; the first one is the reference."""
    return [*(name for name, restorer in models.items() if restorer.spikes is None), "blurred"]


def _protocol(threshold: float | None) -> dict[str, str]:
    """Describe the corruptions."""
    scaling = "voxels are normalised by it"
    return {
        "threshold": f"every n-th spike of each pixel and frame, from a random one on; {scaling}; "
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
