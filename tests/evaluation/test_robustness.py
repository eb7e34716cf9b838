"""Disturbed spikes reach the model as they should, and where it falls is where the curves cross."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.spikes.naive_voxels import voxelize
from vrtspike.config.evaluation import EvaluationSettings
from vrtspike.datasets.clip import Clip, read_spikes
from vrtspike.datasets.index import open_dataset
from vrtspike.errors import ConfigError
from vrtspike.evaluation.corruptions import Corruption
from vrtspike.evaluation.curves import Level, Response, Robustness
from vrtspike.evaluation.results import Results, Score
from vrtspike.evaluation.robustness import DISTURBANCES, evaluate_robustness, passes
from vrtspike.evaluation.run import evaluate
from vrtspike.restoration.restorer import Restorer
from vrtspike.spikes.representation import SpikeRepresentation

SETTINGS = EvaluationSettings(tfp_steps=16, sdm_steps=24, tile_frames=4, overlap_frames=2)
FRAMES = {"long": 6, "short": 2}


class Spikes(nn.Module):
    """Show the mean of the voxels, and keep what was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Tensor] = []

    def forward(self, blurred: Tensor, voxels: Tensor) -> Tensor:
        self.given.append(voxels[0].clone())
        return voxels.mean(dim=2, keepdim=True).repeat(1, 1, 3, 1, 1)


class Same(nn.Module):
    """Return the input."""

    def forward(self, blurred: Tensor, voxels: None = None) -> Tensor:
        return blurred


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, moving_photograph: Callable[..., Path]
) -> Path:
    return moving_photograph(tmp_path_factory.mktemp("data"), FRAMES)


@pytest.fixture(scope="module")
def models() -> dict[str, Restorer]:
    return {"baseline": Restorer(Same()), "fused": Restorer(Spikes(), SpikeRepresentation(8))}


@pytest.fixture(scope="module")
def results(folder: Path, models: dict[str, Restorer]) -> Results:
    return evaluate(folder, "held_out", models, SETTINGS)


@dataclass(frozen=True)
class Run:
    """What a run found, what it told, and what it did."""

    found: Robustness
    heard: list[tuple[int, int]]
    given: list[Tensor]
    copied: int


@pytest.fixture(scope="module")
def run(folder: Path, models: dict[str, Restorer], results: Results) -> Run:
    heard: list[tuple[int, int]] = []
    copied: list[Clip] = []
    local = Clip.local
    model = models["fused"].model
    assert isinstance(model, Spikes)
    model.given.clear()

    def counted(clip: Clip) -> AbstractContextManager[Clip]:
        copied.append(clip)
        return local(clip)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Clip, "local", counted)
        found = evaluate_robustness(
            folder, models, results, SETTINGS, progress=lambda *done: heard.append(done)
        )
    return Run(found, heard, list(model.given), len(copied))


@pytest.fixture(scope="module")
def robustness(run: Run) -> Robustness:
    return run.found


def levels(robustness: Robustness, kind: str) -> dict[float, Level]:
    (response,) = (found for found in robustness.responses if found.kind == kind)
    return {at.level: at for at in response.levels}


def test_every_level_is_there_and_the_undisturbed_one_is_that_of_the_evaluation(
    robustness: Robustness, results: Results
) -> None:
    assert robustness.models == ["fused"]
    assert list(levels(robustness, "threshold")) == [2.0, 4.0, 8.0], "absolute thresholds"
    assert list(levels(robustness, "time")) == [-8, -4, -2, -1, 0, 1, 2, 4, 8]
    assert list(levels(robustness, "space")) == [0, 1, 2, 4, 8]
    assert list(levels(robustness, "dropped")) == [0, 0.05, 0.1, 0.2, 0.5]
    assert list(levels(robustness, "noise")) == [0, 0.005, 0.02, 0.05, 0.1]
    assert list(levels(robustness, "silent")) == [0, 1]
    for response in robustness.responses:
        (at_rest,) = (at for at in response.levels if at.level == response.undisturbed)
        assert at_rest.score == results.over_frames("fused")


def test_the_model_is_told_the_new_threshold(robustness: Robustness) -> None:
    """So the brightness stays, with a fourth of the spikes; lost spikes darken instead."""
    threshold = levels(robustness, "threshold")
    assert threshold[8].rate == pytest.approx(threshold[2].rate / 4, rel=0.02)
    assert threshold[8].score.psnr > levels(robustness, "dropped")[0.5].score.psnr + 3


def test_rates_are_those_of_the_exposure(robustness: Robustness, folder: Path) -> None:
    clips = open_dataset(folder).clips("held_out")
    streams = [read_spikes(clip).reshape(-1, 40, 48) for clip in clips]
    for level, at in levels(robustness, "time").items():
        found = []
        for stream, frames in zip(streams, FRAMES.values(), strict=True):
            mirrored = np.pad(stream, ((8, 8), (0, 0), (0, 0)), mode="symmetric")
            starts = [8 + 64 * frame + int(level) for frame in range(frames)]
            found += [mirrored[start : start + 56].mean() for start in starts]
        assert at.rate == pytest.approx(float(np.mean(found)), rel=1e-6)
    own = levels(robustness, "time")[0].rate
    dropped, noise = levels(robustness, "dropped"), levels(robustness, "noise")
    assert dropped[0].rate == noise[0].rate == own
    assert dropped[0.2].rate == pytest.approx(0.8 * own, rel=0.02)
    assert noise[0.1].rate == pytest.approx(own + 0.1 * (1 - own), rel=0.02)
    assert levels(robustness, "silent")[1].rate == 0


def test_scores_fall_with_the_disturbance(robustness: Robustness) -> None:
    for kind in ("dropped", "noise", "silent"):
        psnr = [at.score.psnr for at in levels(robustness, kind).values()]
        assert psnr == sorted(psnr, reverse=True)


def test_the_reference_is_the_model_without_spikes_or_else_the_input(
    robustness: Robustness, folder: Path, models: dict[str, Restorer], results: Results
) -> None:
    assert robustness.reference == "baseline"
    assert list(robustness.references) == ["baseline", "blurred"]
    alone = {"fused": models["fused"]}
    found = evaluate_robustness(folder, alone, results, SETTINGS)
    assert found.reference == "blurred" and list(found.references) == ["blurred"]


def of_the_long_sequence(run: Run) -> dict[Corruption, tuple[Tensor, Tensor]]:
    """Return the voxels of its two clips, of frames 0 to 3 and 2 to 5, by disturbance."""
    pairs = zip(run.given[::2], run.given[1::2], strict=False)
    return dict(zip(DISTURBANCES, pairs, strict=False))


def test_a_frame_that_two_clips_share_has_the_same_spikes_twice(run: Run) -> None:
    given = of_the_long_sequence(run)
    assert len(given) == 23
    for first, second in given.values():
        assert torch.equal(first[2:], second[:2])
    # What is lost at one level is not what is lost at another one.
    assert not any(torch.equal(a[0], b[0]) for a, b in pairwise(given.values()))


def test_steps_beyond_the_frame_are_those_of_its_neighbours(run: Run, folder: Path) -> None:
    (clip, _) = open_dataset(folder).clips("held_out")
    stream = read_spikes(clip).reshape(-1, 40, 48)
    given = of_the_long_sequence(run)

    def counts(level: float, frame: int) -> NDArray[np.float32]:
        # 7 steps a bin, threshold 2
        rates: NDArray[np.float32] = given[Corruption("time", level)][0][frame].numpy()
        return (rates * 7 / 2).round()

    for level in (-8, 8):
        start = 64 + level
        expected = voxelize(stream[start : start + 56], 8)
        np.testing.assert_array_equal(counts(float(level), 1), expected)
    # The first frame's earlier steps are mirrored.
    mirrored = np.concatenate([stream[:8][::-1], stream[:48]])
    np.testing.assert_array_equal(counts(-8.0, 0), voxelize(mirrored, 8))


def test_progress_counts_every_frame_of_every_disturbance(
    run: Run, models: dict[str, Restorer]
) -> None:
    assert passes(models) == 23
    assert run.heard == [(i, 23 * 8) for i in range(1, 23 * 8 + 1)]


def test_a_clip_is_copied_here_once_for_all_disturbances(run: Run) -> None:
    assert run.copied == len(FRAMES)


def test_without_a_model_of_spikes_it_is_refused_at_once(
    folder: Path, models: dict[str, Restorer], results: Results
) -> None:
    alone = {"baseline": models["baseline"]}
    with pytest.raises(ConfigError, match=r"evaluation\.robustness.*got models baseline.*--fused"):
        evaluate_robustness(folder, alone, results, SETTINGS)
    with pytest.raises(ConfigError, match="got no model"):
        evaluate_robustness(folder, {}, results, SETTINGS)


def test_thresholds_that_differ_between_sequences_are_said_as_factors(
    folder: Path, models: dict[str, Restorer], results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    long, short = open_dataset(folder).clips("held_out")
    spike = short.info.camera.model_copy(update={"threshold": 3.0})
    other = replace(short, info=short.info.model_copy(update={"spike": spike}))
    monkeypatch.setattr(
        sys.modules["vrtspike.evaluation.robustness"],
        "scored_clips",
        lambda *_, **__: (long, other),
    )
    found = evaluate_robustness(folder, models, results, SETTINGS)
    assert list(levels(found, "threshold")) == [1, 2, 4]
    assert "times each sequence's own" in found.protocol["threshold"]


def response(kind: str, psnr: dict[float, float], undisturbed: float = 0) -> Response:
    found = tuple(Level(float(at), 0.1, Score(float(db), 0.5)) for at, db in psnr.items())
    return Response("fused", kind, float(undisturbed), found)  # type: ignore[arg-type]


def test_the_fall_is_where_the_line_between_levels_crosses() -> None:
    falling = response("dropped", {0: 30, 0.1: 28, 0.5: 20})
    assert falling.falls_at(24.0) == {"more": pytest.approx(0.3)}
    assert falling.falls_at(28.0) == {"more": pytest.approx(0.1)}
    assert falling.falls_at(19.0) == {"more": None}
    assert falling.falls_at(31.0) == {"more": 0}
    # One that comes back later has fallen all the same.
    assert response("noise", {0: 30, 1: 20, 2: 30}).falls_at(25.0) == {"more": 0.5}


def test_an_offset_has_two_sides() -> None:
    both = response("time", {-8: 20, -4: 26, 0: 30, 4: 29, 8: 28})
    assert both.falls_at(23.0) == {"earlier": -6, "later": None}
    assert both.falls_at(28.5) == {"earlier": pytest.approx(-1.5), "later": 6}


def test_between_spikes_and_none_there_is_no_level() -> None:
    assert response("silent", {0: 30, 1: 20}).falls_at(25.0) == {"more": 1}
    assert response("silent", {0: 30, 1: 26}).falls_at(25.0) == {"more": None}


def test_a_threshold_starts_from_the_cameras_own() -> None:
    found = response("threshold", {2: 30, 4: 28, 8: 20}, undisturbed=2)
    assert found.falls_at(24.0) == {"more": 6}
    assert found.falls_at(31.0) == {"more": 2}


def test_json_and_csv_hold_all_of_it(
    robustness: Robustness, results: Results, tmp_path: Path
) -> None:
    whole = replace(results, robustness=robustness)
    whole.write_json(tmp_path / "results.json")
    found = json.loads((tmp_path / "results.json").read_text())
    assert list(found["held_out"]) == results.methods
    part = found["robustness"]
    assert part["reference"] == "baseline"
    assert part["references"]["blurred"] == found["held_out"]["blurred"]
    dropped = part["models"]["fused"]["dropped"]
    assert [level["level"] for level in dropped["levels"]] == [0, 0.05, 0.1, 0.2, 0.5]
    assert dropped["levels"][0]["psnr"] == found["held_out"]["fused"]["psnr"]
    assert set(part["models"]["fused"]["time"]["falls_at"]) == {"earlier", "later"}
    rows = list(csv.DictReader(robustness.csv("held_out").splitlines()))
    assert len(rows) == sum(len(r.levels) for r in robustness.responses) == 23 + 6
    assert float(rows[0]["psnr"]) == pytest.approx(dropped["levels"][0]["psnr"], abs=1e-5)
    assert "robustness" not in results.as_dict()
