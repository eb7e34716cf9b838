"""A report is one file that needs nothing else, and shows what the results say."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from vrtspike.config.config import Config
from vrtspike.config.loader import load_config
from vrtspike.config.model import GuessSettings
from vrtspike.errors import ConfigError
from vrtspike.evaluation.corruptions import Kind
from vrtspike.evaluation.curves import Level, Response, Robustness
from vrtspike.evaluation.results import FrameScore, Panel, Results, Score
from vrtspike.report.charts import CURVE_POINTS, thinned
from vrtspike.report.evaluation import run_evaluation
from vrtspike.report.evaluation_page import RunRecord, write_report
from vrtspike.report.methods import main_model
from vrtspike.restoration.memory import MemoryBudget
from vrtspike.restoration.restorer import Restorer
from vrtspike.spikes.representation import SpikeRepresentation

PSNR = {"blurred": 24.0, "tfp": 18.0, "tfi": 17.0, "sdm": 25.0, "baseline": 24.5, "fused": 26.25}
VOID = {"meta", "input", "line", "circle", "polyline"}


class Page(HTMLParser):
    """Check that elements close in order, and collect what a test wants to see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag == "tr":
            self.rows.append([])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and {"td", "th"} & set(self.open) and "small" not in self.open:
            self.rows[-1].append(data.strip())


def make_results(sequence: str = "street", **others: float) -> Results:
    rng = np.random.default_rng(0)
    rows, panels = [], []
    for name in (sequence, "other"):
        for frame in ("000000", "000001"):
            rows += [
                FrameScore(name, frame, method, Score(psnr, psnr / 40, **others))
                for method, psnr in PSNR.items()
            ]
        images = {m: rng.integers(0, 256, (24, 32, 3), dtype=np.uint8) for m in [*PSNR, "sharp"]}
        scores = {row.method: row.score for row in rows[-len(PSNR) :]}
        panels.append(Panel(name, "000001", images, scores))
    return Results(split="held_out", protocol={"frames": 4}, frames=rows, panels=panels)


def write(path: Path, results: Results) -> str:
    metrics = [
        {"kind": kind, "step": step, "psnr": 20 + step / 100, "loss": 1 / step}
        for step in range(1, 400)
        for kind in ("train", "val")
    ]
    run = RunRecord("lr: 1\nname: <script>", metrics)
    write_report(
        path, results, title="demo", runs={"fused": run}, environment={"device": "cpu, <b>"}
    )
    return path.read_text(encoding="utf-8")


def test_the_page_is_whole_and_needs_no_network(tmp_path: Path) -> None:
    text = write(tmp_path / "report.html", make_results())
    page = Page(text)
    assert page.links == []
    assert not re.search(r"https?://|@import|url\((?!data:)", text)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_table_shows_the_means_and_the_gains(tmp_path: Path) -> None:
    page = Page(write(tmp_path / "report.html", make_results(lpips=0.25)))
    rows = {row[0]: row[1:] for row in page.rows if row}
    assert rows["Method"] == [
        "PSNR",
        "over blurred",
        "over baseline",
        "SSIM",
        "LPIPS",
        "PSNR by clip",
    ]
    assert rows["With spikes"] == ["26.25", "+2.25", "+1.75", "0.6562", "0.2500", "26.25"]
    assert rows["Spike average (TFP)"][1] == "\N{MINUS SIGN}6.00"
    assert rows["street"] == ["24.00", "18.00", "17.00", "25.00", "24.50", "26.25"]


def test_metrics_that_were_asked_for_have_columns_and_a_word_of_what_they_are(
    tmp_path: Path,
) -> None:
    few = write(tmp_path / "few.html", make_results())
    assert "PSNR Y" not in few and "tDiff" not in few
    text = write(
        tmp_path / "report.html",
        make_results(lpips=0.25, psnr_y=27.5, ssim_y=0.75, tdiff=3.125, tlp=0.0625),
    )
    rows = {row[0]: row[1:] for row in Page(text).rows if row}
    assert rows["Method"][4:] == [
        *("LPIPS", "PSNR Y", "SSIM Y", "tDiff", "tLP", "PSNR by clip"),
    ]
    assert rows["Spike average (TFP)"][4:9] == ["0.2500", "27.50", "0.7500", "3.12", "0.0625"]
    assert "gray levels of 255" in text and "BT.601" in text


def test_a_single_frame_has_no_change_to_show(tmp_path: Path) -> None:
    results = make_results(tdiff=3.0)
    first = [replace(row, score=replace(row.score, tdiff=None)) for row in results.frames]
    assert "tDiff" not in write(tmp_path / "report.html", replace(results, frames=first))


def test_what_vrt_adds_to_its_first_guess_is_said(tmp_path: Path) -> None:
    results = make_results()
    assert "first guess" not in write(tmp_path / "without.html", results)
    guess = [
        replace(row, method="first_guess", score=Score(25.5, 0.6))
        for row in results.frames
        if row.method == "fused"
    ]
    text = write(tmp_path / "report.html", replace(results, frames=[*guess, *results.frames]))
    assert "With spikes adds +0.75 dB to its first guess." in text
    rows = {row[0]: row[1:] for row in Page(text).rows if row}
    assert rows["First guess"][:3] == ["25.50", "+1.50", "+1.00"]
    assert "+0.75<small>dB</small></p><p>over its own first guess" in text


def make_robustness() -> Robustness:
    def response(kind: Kind, psnr: dict[float, float], undisturbed: float = 0.0) -> Response:
        levels = [Level(at, 0.125, Score(db, 0.5)) for at, db in psnr.items()]
        return Response("fused", kind, undisturbed, tuple(levels))

    return Robustness(
        reference="baseline",
        references={name: Score(PSNR[name], 0.5) for name in ("baseline", "blurred")},
        responses=(
            response("threshold", {2.0: 26.25, 4.0: 26.0, 8.0: 25.0}, undisturbed=2.0),
            response("time", {-8.0: 23.5, 0.0: 26.25, 8.0: 25.0}),
            response("dropped", {0.0: 26.25, 0.5: 22.75}),
            response("silent", {0.0: 26.25, 1.0: 24.0}),
        ),
        protocol={"dropped": "each <spike> lost"},
    )


def test_robustness_has_a_chart_for_each_kind_and_says_where_models_fall(tmp_path: Path) -> None:
    results = replace(make_results(), robustness=make_robustness())
    text = write(tmp_path / "report.html", results)
    part = text.split("<h2>Robustness", 1)[1].split("</section>", 1)[0]
    _, levels = part.split("<summary>All levels")
    in_order = [row for row in Page(text).rows if row]
    rows = {row[0]: row[1:] for row in reversed(in_order)}  # of two tables the first one's
    # One for each kind; no spikes at all is a number.
    assert part.count("<svg") == 3
    rates = "Spikes a pixel and step: 0.12 at 2, 0.12 at 4, 0.12 at 8"
    assert part.count("Spikes a pixel and step") == 1 and rates in part
    assert part.count('class="reference series-baseline"') == 3
    assert part.count('class="reference series-blurred"') == 3
    assert "<title>Without spikes: 24.50</title>" in part
    assert rows["Threshold"] == ["never within the range tried, to threshold 8"]
    assert rows["Time offset, earlier"] == ["\N{MINUS SIGN}5.09 steps"]
    assert rows["Time offset, later"] == ["never within the range tried, to 8 steps"]
    assert rows["Dropped spikes"][0] == "probability 0.25"
    assert rows["No spikes"][0] == "under it: \N{MINUS SIGN}0.50 dB"
    assert (
        "each &lt;spike&gt; lost" in levels and levels.split("</table>")[0].count("<tr>") == 1 + 10
    )
    assert "Robustness" not in write(tmp_path / "without.html", make_results())


def test_robustness_without_a_baseline_says_what_it_is_held_against(tmp_path: Path) -> None:
    found = make_robustness()
    held = {"blurred": found.references["blurred"]}
    alone = replace(found, reference="blurred", references=held)
    text = write(tmp_path / "report.html", replace(make_results(), robustness=alone))
    assert "Falls under Blurred input at" in text and "dashed line of <b>Blurred input" in text


def test_data_without_spikes_has_a_report_too(tmp_path: Path) -> None:
    protocol = {"frame_size": [24, 32], "spike_size": None}
    text = write(tmp_path / "report.html", replace(make_results(), protocol=protocol))
    about = text.split('<p class="about">')[1].split("</p>")[0]
    assert "frames 32 × 24" in about and "Hz" not in about


def test_names_from_outside_cannot_change_the_page(tmp_path: Path) -> None:
    text = write(tmp_path / "report.html", make_results("<script>alert(1)</script>"))
    Page(text)
    assert text.count("<script>") == 1
    assert "<b>" not in text.split("How this was made")[1]


def test_every_picture_is_embedded_once(tmp_path: Path) -> None:
    text = write(tmp_path / "report.html", make_results())
    frames, error_maps, panels = 6, 5, 2
    assert text.count("data:image/png;base64,") == panels * (frames + error_maps)


def test_long_curves_are_thinned_and_keep_their_course() -> None:
    points = [(float(step), float(step)) for step in range(30_001)]
    found = thinned(points)
    assert len(found) <= CURVE_POINTS
    assert all(x == pytest.approx(y) for x, y in found)
    assert thinned(points[:5]) == tuple(points[:5])


def test_the_report_is_about_the_fused_model_or_the_only_one() -> None:
    assert main_model(PSNR) == "fused"
    assert main_model(["blurred", "sdm", "mine"]) == "mine"
    assert main_model(["blurred", "sdm"]) is None


def test_a_run_record_survives_half_a_line_and_missing_files(tmp_path: Path) -> None:
    assert RunRecord.read(tmp_path) == RunRecord("", [])
    (tmp_path / "metrics.jsonl").write_text('{"kind": "val", "step": 1}\n{"kind": "va')
    assert RunRecord.read(tmp_path).metrics == [{"kind": "val", "step": 1}]


@pytest.fixture
def config(tmp_path: Path, moving_photograph: Callable[..., Path], repository: Path) -> Config:
    source = moving_photograph(tmp_path / "data", {"a": 3, "b": 2}, size=(64, 64))
    return load_config(repository / "configs" / "debug.yaml", [f"data.source={source}"])


def save_run(config: Config, folder: Path) -> Path:
    from safetensors.torch import save_file

    from vrtspike.config.loader import dump_config
    from vrtspike.model import build_model

    torch.manual_seed(0)
    (folder / "export").mkdir(parents=True)
    save_file(build_model(config.model).state_dict(), folder / "export" / "model.safetensors")
    (folder / "config.yaml").write_text(dump_config(config))
    return folder


def test_runs_are_evaluated_into_a_folder(config: Config, tmp_path: Path) -> None:
    run = save_run(config, tmp_path / "runs" / "fused")
    out = tmp_path / "out"
    heard: list[tuple[int, int]] = []
    run_evaluation(
        config,
        {"fused": Restorer.load(run)},
        out,
        runs={"fused": run},
        device=torch.device("cpu"),
        progress=lambda *done: heard.append(done),
    )
    found = json.loads((out / "results.json").read_text())
    # Training starts from the identity, so an untrained model returns its input.
    assert found["held_out"]["fused"] == found["held_out"]["blurred"]
    assert heard[-1] == (10, 10)
    assert {path.name for path in out.iterdir()} == {
        "results.json",
        "results.csv",
        "report.html",
        "samples",
    }
    Page((out / "report.html").read_text(encoding="utf-8"))
    assert len(list((out / "samples" / "held_out").glob("*/*-fused.png"))) == 2


def test_a_first_guess_is_a_method_before_its_model(config: Config, tmp_path: Path) -> None:
    model = config.model.model_copy(update={"guess": GuessSettings(channels=8, blocks=1)})
    guided = config.model_copy(update={"model": model})
    run = save_run(guided, tmp_path / "guided")
    fused, plain = Restorer.load(run), Restorer.load(save_run(config, tmp_path / "plain"))
    weights = fused.model.state_dict()
    weights["guess.conv_last.bias"].fill_(0.25)  # the guess is brighter, its model is not
    weights["trunk.vrt.conv_last.bias"].fill_(-0.25)
    heard: list[tuple[int, int]] = []
    out = tmp_path / "out"
    models = {"fused": fused, "plain": plain, "small (packaged)": fused}
    results = run_evaluation(
        config,
        models,
        out,
        known_as={"fused": "mine"},
        device=torch.device("cpu"),
        progress=lambda *done: heard.append(done),
    )
    guesses = ["first_guess", "small (packaged): first guess"]
    assert results.methods[4:] == [guesses[0], "fused", "plain", guesses[1], "small (packaged)"]
    found = json.loads((out / "results.json").read_text())
    assert found["held_out"]["first_guess"] == found["held_out"][guesses[1]]
    assert found["held_out"]["first_guess"]["psnr"] < 15 < found["held_out"]["fused"]["psnr"]
    facts = found["protocol"]["models"]
    assert facts["first_guess"]["first_guess_of"] == "fused" and facts["fused"]["weights"] == "mine"
    assert facts["first_guess"]["parameters"] < facts["fused"]["parameters"]
    assert ",first_guess," in (out / "results.csv").read_text()
    assert heard[-1] == (30, 30)


def test_an_output_that_is_a_file_is_refused_first(config: Config, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="folder"):
        run_evaluation(config, {}, tmp_path / "out", device=torch.device("cpu"))


class Input(torch.nn.Module):
    """Return the blurred input, whatever the spikes."""

    def forward(self, blurred: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
        return blurred


def disturbing(config: Config) -> Config:
    evaluation = config.evaluation.model_copy(update={"robustness": True})
    return config.model_copy(update={"evaluation": evaluation})


def test_evaluating_counts_disturbed_spikes_as_progress(
    config: Config,
    tmp_path: Path,
    moving_photograph: Callable[..., Path],
) -> None:
    data = config.data.model_copy(update={"source": moving_photograph(tmp_path / "few", {"a": 2})})
    heard: list[tuple[int, int]] = []
    out = tmp_path / "out"
    run_evaluation(
        disturbing(config.model_copy(update={"data": data})),
        {"fused": Restorer(Input(), SpikeRepresentation(4))},
        out,
        device=torch.device("cpu"),
        progress=lambda *done: heard.append(done),
    )
    frames = 2
    assert {total for _, total in heard} == {frames * (2 + 23)}
    done = [done for done, _ in heard]
    assert done == sorted(set(done)) and heard[-1] == (50, 50)
    found = json.loads((out / "results.json").read_text())
    dropped = found["robustness"]["models"]["fused"]["dropped"]
    assert found["robustness"]["reference"] == "blurred" and dropped["falls_at"] == {"more": None}
    assert len((out / "robustness.csv").read_text().splitlines()) == 1 + 23 + 6
    assert "<h2>Robustness" in (out / "report.html").read_text(encoding="utf-8")


def test_models_see_tiles_where_whole_frames_do_not_fit(
    config: Config,
    tmp_path: Path,
    moving_photograph: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = moving_photograph(tmp_path / "large", {"a": 2}, size=(136, 160))
    data = config.data.model_copy(update={"source": place})
    # The package's `evaluate` is the function.
    module = sys.modules["vrtspike.evaluation.run"]
    monkeypatch.setattr(module, "MEASURED", 64)
    monkeypatch.setattr(module, "budget_of", lambda *_: MemoryBudget(limit=10**9, taken=9 * 10**8))
    monkeypatch.setattr("vrtspike.restoration.memory._bytes_per_pixel", lambda *_: 1e4)
    results = run_evaluation(
        config.model_copy(update={"data": data}),
        {"fused": Restorer(Input(), SpikeRepresentation(4), settings=config.model)},
        tmp_path / "out",
        device=torch.device("cpu"),
    )
    assert 64 <= results.protocol["tile"] < 136


def test_robustness_without_a_model_of_spikes_is_refused_first(
    config: Config, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.robustness"):
        run_evaluation(disturbing(config), {}, tmp_path / "out", device=torch.device("cpu"))
    assert not (tmp_path / "out").exists()
