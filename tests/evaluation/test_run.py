"""An evaluation scores every frame with every method, and its means are those of its parts."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor, nn

from vrtspike.config.evaluation import EvaluationSettings
from vrtspike.config.model import ModelSettings
from vrtspike.datasets.clip import Clip, FrameKind, read_frames
from vrtspike.datasets.index import Dataset, open_dataset
from vrtspike.errors import CheckpointError, ConfigError, DataFormatError, ResourceError
from vrtspike.evaluation.results import METRICS, PSNR_CAP, FrameScore, Results, Score
from vrtspike.evaluation.run import evaluate, evenly, fit_tile, model_inputs
from vrtspike.restoration import memory
from vrtspike.restoration.memory import MemoryBudget
from vrtspike.restoration.restorer import Restorer, load_run
from vrtspike.spikes.representation import SpikeRepresentation

SETTINGS = EvaluationSettings(tfp_steps=16, sdm_steps=24, tile_frames=4, overlap_frames=1)


class Brighten(nn.Module):
    """Add a constant to the blurred frames; refuse voxels that were not asked for."""

    def __init__(self, bins: int | None) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(20 / 255))
        self.bins = bins

    def forward(self, blurred: Tensor, voxels: Tensor | None = None) -> Tensor:
        assert (voxels is None) == (self.bins is None)
        assert voxels is None or voxels.shape[:3] == (*blurred.shape[:2], self.bins)
        return blurred + self.offset


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, moving_photograph: Callable[..., Path]
) -> Path:
    return moving_photograph(tmp_path_factory.mktemp("data"), {"long": 6, "short": 2})


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    models = {
        "baseline": Restorer(Brighten(None)),
        "fused": Restorer(Brighten(4), SpikeRepresentation(4)),
    }
    return evaluate(folder, "held_out", models, SETTINGS)


def test_every_method_scores_every_frame(results: Results) -> None:
    assert results.methods == ["blurred", "tfp", "tfi", "sdm", "baseline", "fused"]
    assert results.sequences == ["long", "short"]
    assert len(results.frames) == 6 * (6 + 2)
    assert results.over_frames("fused") == results.over_frames("baseline")


def test_scores_are_those_of_the_frames(results: Results, folder: Path) -> None:
    for clip in open_dataset(folder).clips("held_out"):
        blurred, sharp = read_frames(clip, "blurred"), read_frames(clip, "sharp")
        brighter = np.minimum(blurred, 235) + 20
        for method, images in (("blurred", blurred), ("fused", brighter)):
            found = [
                row.score.psnr
                for row in results.frames
                if (row.sequence, row.method) == (clip.sequence, method)
            ]
            expected = [
                peak_signal_noise_ratio(s, i, data_range=255)
                for s, i in zip(sharp, images, strict=True)
            ]
            assert found == pytest.approx(expected, abs=1e-3)


def test_both_means_are_stated_and_differ_as_they_should(results: Results) -> None:
    long, short = (results.over_frames("tfp", sequence) for sequence in results.sequences)
    assert results.over_frames("tfp").psnr == pytest.approx((6 * long.psnr + 2 * short.psnr) / 8)
    assert results.over_clips("tfp").psnr == pytest.approx((long.psnr + short.psnr) / 2)


def test_json_and_csv_hold_the_scores(results: Results, tmp_path: Path) -> None:
    results.write_json(tmp_path / "results.json")
    found = json.loads((tmp_path / "results.json").read_text())
    assert set(found) == {"protocol", "held_out", "mean_over_clips", "sequences"}
    mean = results.over_frames("sdm")
    assert found["held_out"]["sdm"] == {
        **{"psnr": mean.psnr, "ssim": mean.ssim, "lpips": None},
        **{"psnr_y": None, "ssim_y": None, "tdiff": mean.tdiff, "tlp": None},
    }
    assert found["protocol"]["frames"] == 8
    results.write_csv(tmp_path / "results.csv")
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert len(rows) == len(results.frames)
    assert float(rows[0]["psnr"]) == pytest.approx(results.frames[0].score.psnr, abs=1e-5)
    assert rows[0]["tdiff"] == rows[0]["tlp"] == "" != rows[6]["tdiff"]


def test_panels_show_the_frame_that_is_hardest_without_a_model(results: Results) -> None:
    assert [panel.sequence for panel in results.panels] == ["long", "short"]
    for panel in results.panels:
        assert set(panel.images) == {*results.methods, "sharp"}
        of_blurred = {
            row.frame: row.score.psnr
            for row in results.frames
            if (row.sequence, row.method) == (panel.sequence, "blurred")
        }
        assert panel.frame == min(of_blurred, key=of_blurred.__getitem__)
        assert panel.scores["blurred"].psnr == of_blurred[panel.frame]


def test_progress_counts_every_frame_of_every_model(folder: Path) -> None:
    heard: list[tuple[int, int]] = []
    evaluate(
        folder,
        "held_out",
        {"fused": Restorer(Brighten(None))},
        SETTINGS,
        progress=lambda done, total: heard.append((done, total)),
    )
    assert heard[-1] == (16, 16)
    assert [done for done, _ in heard] == sorted({done for done, _ in heard})


def test_without_controls_models_score_the_same_and_nothing_else_is_done(
    folder: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a control was computed")

    # The package's `evaluate` is the function.
    monkeypatch.setattr(sys.modules["vrtspike.evaluation.run"], "controls", refuse)
    heard: list[tuple[int, int]] = []
    models = {"fused": Restorer(Brighten(4), SpikeRepresentation(4))}
    found = evaluate(
        folder,
        "held_out",
        models,
        SETTINGS,
        with_controls=False,
        progress=lambda done, total: heard.append((done, total)),
    )
    assert found.methods == ["fused"] and found.panels == []
    assert found.frames == [row for row in results.frames if row.method == "fused"]
    assert found.over_frames("fused") == results.over_frames("fused")
    assert heard[-1] == (8, 8)


def test_voxels_are_rates_over_the_exposure_alone(folder: Path) -> None:
    clip = open_dataset(folder).clips("held_out")[0]
    blurred, voxels = model_inputs(clip, 1, 4, Restorer(nn.Identity(), SpikeRepresentation(4)))
    assert blurred.shape == (3, 3, 40, 48)
    assert voxels is not None
    assert voxels.shape == (3, 4, 40, 48)
    gray = (blurred * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    assert (voxels.mean(1) - gray).abs().max() <= clip.info.spike.threshold / 56 + 0.01


def test_lpips_is_computed_on_request(shared: Path, folder: Path) -> None:
    settings = SETTINGS.model_copy(update={"lpips": True})
    found = evaluate(folder, "held_out", {}, settings, weights_dir=shared / "weights")
    values = [row.score.lpips for row in found.frames]
    assert all(value is not None and value > 0 for value in values)
    assert found.protocol["lpips"] == "LPIPS 0.1, AlexNet"
    assert found.over_frames("tfp").tlp is not None
    assert found.over_frames("tfp").psnr_y is found.protocol["psnr_y"] is None


def test_luma_is_computed_on_request(folder: Path, results: Results) -> None:
    found = evaluate(folder, "held_out", {}, SETTINGS.model_copy(update={"luma": True}))
    # Gray images lack no luma, so they come off better.
    gray = found.over_frames("tfp")
    assert gray.psnr_y is not None and gray.psnr_y > gray.psnr + 3
    assert gray.ssim_y is not None and gray.ssim_y > gray.ssim
    assert found.protocol["psnr_y"] and not found.protocol["lpips"]
    assert replace(gray, psnr_y=None, ssim_y=None) == results.over_frames("tfp")


def test_the_change_in_time_is_that_of_the_frames(results: Results, folder: Path) -> None:
    for clip in open_dataset(folder).clips("held_out"):
        blurred, sharp = (read_frames(clip, kind).astype(int) for kind in ("blurred", "sharp"))
        changes = np.diff(blurred, axis=0) - np.diff(sharp, axis=0)
        expected = np.abs(changes).mean(axis=(1, 2, 3)).tolist()
        rows = [r for r in results.frames if (r.sequence, r.method) == (clip.sequence, "blurred")]
        first, *others = (row.score.tdiff for row in rows)
        assert first is None, "what went before is of another sequence"
        assert others == pytest.approx(expected)
        mean = results.over_frames("blurred", clip.sequence).tdiff
        assert mean == pytest.approx(float(np.mean(expected)))


def test_a_sharp_frame_is_read_once_for_all_methods(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, int, int]] = []

    def count(clip: Clip, kind: FrameKind, start: int, stop: int) -> object:
        if kind == "sharp":
            read.append((clip.sequence, start, stop))
        return read_frames(clip, kind, start, stop)

    monkeypatch.setattr(sys.modules["vrtspike.evaluation.run"], "read_frames", count)
    models = {"a": Restorer(Brighten(None)), "b": Restorer(Brighten(4), SpikeRepresentation(4))}
    evaluate(folder, "held_out", models, SETTINGS)
    frames = [("long", i, i + 1) for i in range(6)] + [("short", i, i + 1) for i in range(2)]
    assert read == frames


def test_means_leave_out_what_is_not_there() -> None:
    scores = [Score(1.0, 0.25), Score(2.0, 0.5, tdiff=4.0), Score(3.0, 0.75, tdiff=6.0)]
    mean = Score.mean(scores)
    assert mean == Score(2.0, 0.5, tdiff=5.0)
    assert tuple(mean.as_dict()) == METRICS


def test_equal_frames_count_a_finite_psnr() -> None:
    rows = [FrameScore("s", "0", "blurred", Score(PSNR_CAP, 1.0))]
    text = Results(split="test", protocol={}, frames=rows).as_dict()
    assert json.loads(json.dumps(text, allow_nan=False))["test"]["blurred"]["psnr"] == PSNR_CAP


def test_sequences_that_are_shown_are_spread_evenly() -> None:
    assert evenly(3, 12) == [0, 1, 2]
    assert evenly(100, 3) == [0, 50, 99] or evenly(100, 3) == [0, 49, 99]
    assert len(set(evenly(13, 12))) == 12


def test_bad_folders_are_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="no such dataset folder"):
        evaluate(tmp_path / "none", "held_out", {}, SETTINGS)
    with pytest.raises(DataFormatError, match=r"test.*held_out"):
        evaluate(folder, "test", {}, SETTINGS)
    with pytest.raises(CheckpointError, match="no such run folder"):
        load_run(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"config\.yaml"):
        load_run(tmp_path)


def test_frames_without_a_sharp_one_are_refused_before_any_is_scored(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clip, _) = clips = open_dataset(folder).clips("held_out")
    lacking = replace(clip, frames=(*clip.frames[:-1], replace(clip.frames[-1], sharp=None)))
    monkeypatch.setattr(Dataset, "clips", lambda self, split: (lacking, *clips[1:]))
    with pytest.raises(DataFormatError, match=r"sharp.*held_out/long.*1 of 6 frames without"):
        evaluate(folder, "held_out", {}, SETTINGS, progress=lambda *done: pytest.fail("scored"))


def test_a_folder_without_sharp_frames_is_one_line(
    tmp_path: Path, moving_photograph: Callable[..., Path]
) -> None:
    root = moving_photograph(tmp_path, {"a": 2})
    shutil.rmtree(root / "held_out" / "a" / "sharp")
    with pytest.raises(DataFormatError, match=r"held_out/a.*sharp") as caught:
        evaluate(root, "held_out", {}, SETTINGS)
    assert "\n" not in str(caught.value)


def test_a_model_of_spikes_is_refused_where_there_are_none(
    tmp_path: Path, moving_photograph: Callable[..., Path]
) -> None:
    root = moving_photograph(tmp_path, {"a": 2})
    (root / "dataset.yaml").write_text("frame: {height: 40, width: 48}\nsource: no camera\n")
    with pytest.raises(ConfigError, match=r"spikes.*held_out/a.*fused: a model with spikes"):
        evaluate(
            root, "held_out", {"fused": Restorer(Brighten(4), SpikeRepresentation(4))}, SETTINGS
        )
    found = evaluate(root, "held_out", {"baseline": Restorer(Brighten(None))}, SETTINGS)
    assert found.methods == ["blurred", "baseline"]
    assert found.protocol["spike_size"] is None


def test_numbers_that_are_not_finite_name_the_model_and_the_sequence(folder: Path) -> None:
    broken = Brighten(None)
    broken.offset.data.fill_(float("nan"))
    with pytest.raises(CheckpointError, match=r"not finite \[mine, .*held_out/long"):
        evaluate(folder, "held_out", {"mine": Restorer(broken)}, SETTINGS)


def test_frames_that_do_not_fit_into_memory_are_seen_in_tiles(
    tmp_path: Path, moving_photograph: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All models see the tiles that fit the hungriest, by what was free before any had run."""
    root = moving_photograph(tmp_path, {"a": 3, "b": 2}, size=(136, 160))
    large, small = ModelSettings(), ModelSettings(channels=60)
    models = {
        "fused": Restorer(Brighten(4), SpikeRepresentation(4), settings=small),
        "baseline": Restorer(Brighten(None), settings=large),
    }
    clips = open_dataset(root).clips("held_out")
    assert fit_tile(SETTINGS, clips, models) == SETTINGS, "frames of this size always fit"

    module, asked = sys.modules["vrtspike.evaluation.run"], []

    def budget(device: torch.device, bound: int | None) -> MemoryBudget:
        asked.append(bound)
        return MemoryBudget(limit=10**9, taken=9 * 10**8)

    monkeypatch.setattr(module, "MEASURED", 64)
    monkeypatch.setattr(module, "budget_of", budget)
    need = {small: 1e3, large: 1e4}
    monkeypatch.setattr(memory, "_bytes_per_pixel", lambda model, *_: need[model])
    fitted = fit_tile(SETTINGS, clips, models)
    assert fitted.tile is not None and 64 <= fitted.tile < 136 and asked == [None]
    assert fit_tile(SETTINGS, clips, {"fused": models["fused"]}).tile is None
    tiled = evaluate(root, "held_out", models, fitted)
    assert tiled.protocol["tile"] == fitted.tile
    assert tiled.frames == evaluate(root, "held_out", models, SETTINGS).frames

    need[large] = 1e6
    with pytest.raises(ResourceError, match=r"smallest tile.*evaluation\.tile_frames"):
        fit_tile(SETTINGS, clips, models)
