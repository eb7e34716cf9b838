"""A report is one file that needs nothing else, and shows what the results say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vrtspike.config import load_config
from vrtspike.errors import ConfigError
from vrtspike.inference.results import FrameScore, Panel, Results, Score
from vrtspike.settings import Config
from vrtspike.viz.evaluation import run_evaluation
from vrtspike.viz.methods import main_model
from vrtspike.viz.report import CURVE_POINTS, RunRecord, thinned, write_report

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


def make_results(sequence: str = "street", lpips: float | None = None) -> Results:
    rng = np.random.default_rng(0)
    rows, panels = [], []
    for name in (sequence, "other"):
        for frame in ("000000", "000001"):
            rows += [
                FrameScore(name, frame, method, Score(psnr, psnr / 40, lpips))
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
    assert rows["VRT with spikes"] == ["26.25", "+2.25", "+1.75", "0.6562", "0.2500", "26.25"]
    assert rows["Spike average (TFP)"][1] == "\N{MINUS SIGN}6.00"
    assert rows["street"] == ["24.00", "18.00", "17.00", "25.00", "24.50", "26.25"]


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
    import torch
    from safetensors.torch import save_file

    from vrtspike.config import dump_config
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
    run_evaluation(config, {"fused": run}, out, progress=lambda *done: heard.append(done))
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


def test_an_output_that_is_a_file_is_refused_first(config: Config, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="folder"):
        run_evaluation(config, {}, tmp_path / "out")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_shows_it(theme: str, tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    write(tmp_path / "report.html", make_results())
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += ["--force-dark-mode"] if theme == "dark" else []
    picture = tmp_path / "page.png"
    subprocess.run(
        [
            browser,
            *flags,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1200,2400",
            f"--screenshot={picture}",
            (tmp_path / "report.html").as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=100,
    )
    pixels = np.asarray(Image.open(picture).convert("L"))
    page = int(pixels[5, 5])
    assert page > 200 if theme == "light" else page < 60
    assert pixels[500:2000].std() > 20
