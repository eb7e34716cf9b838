"""The page of results says what evaluations and sweeps left, and texts stay texts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DOCS = Path(__file__).resolve().parents[2] / "docs"
sys.path.insert(0, str(DOCS))
from make_results import table  # noqa: E402
from picture_strip import MOST_BYTES, encoded, strip  # noqa: E402

from vrtspike.evaluation.results import FrameScore, Panel, Results, Score  # noqa: E402
from vrtspike.report.text import markdown  # noqa: E402

PSNR = {
    "blurred": {"long": [20.0, 22.0, 24.0], "short": [25.0], "dark": [19.0]},
    "tfp": {"long": [15.0, 15.0, 15.0], "short": [15.0], "dark": [15.0]},
    "baseline": {"long": [23.0, 24.0, 25.0], "short": [26.0], "dark": [21.0]},
    "fused": {"long": [26.0, 27.0, 28.0], "short": [27.0], "dark": [25.0]},
}


def evaluation(folder: Path) -> Path:
    """Write what an evaluation leaves."""
    rows = [
        FrameScore(sequence, f"{number:06d}", name, Score(psnr, psnr / 40))
        for name, sequences in PSNR.items()
        for sequence, frames in sequences.items()
        for number, psnr in enumerate(frames)
    ]
    results = Results("held_out", {}, rows)
    folder.mkdir()
    results.write_json(folder / "results.json")
    results.write_csv(folder / "results.csv")
    samples = folder / "samples" / "held_out" / "long"
    samples.mkdir(parents=True)
    for name in (*PSNR, "sharp"):
        Image.new("RGB", (64, 48)).save(samples / f"000001-{name}.png")
    return folder


def written(tmp_path: Path, *more: object) -> str:
    """Run the script as one types it, and return the page."""
    page = tmp_path / "page.md"
    words = [sys.executable, DOCS / "make_results.py", evaluation(tmp_path / "street"), *more]
    subprocess.run([*map(str, words), "--out", str(page)], check=True)
    return page.read_text(encoding="utf-8")


def test_the_tables_hold_means_spreads_and_gains(tmp_path: Path) -> None:
    text = written(tmp_path)
    # Mean over the five frames; spread of the means 27, 27 and 25 of the sequences, with n - 1.
    assert "| With spikes | **26.60** ± 1.15 |" in text
    assert "| Blurred input | 22.00 ± 3.06 |" in text or "| Blurred input | 22.00 ± 3.00 |" in text
    # Paired by sequence: 3, 1 and 4.
    assert "| With spikes | +4.33 ± 1.20 | +2.67 ± 0.88 |" in text
    (link,) = re.findall(r"!\[\]\((.*?)\)", text)
    assert (tmp_path / link).is_file() and "long, frame 000001" in text


def test_a_sweep_has_a_line_a_trial(tmp_path: Path) -> None:
    sweep = tmp_path / "fusion"
    sweep.mkdir()
    heads = "name,arm,state,steps,model.fusion,psnr,gain,gain_spread,step_s,memory_gb"
    (sweep / "results.csv").write_text(f"{heads}\ntrial-000,search,done,10,gate,28.5,1.5,,0.5,2\n")
    text = written(tmp_path, "--sweep", sweep)
    assert "| trial-000 | gate | done | 10 | 28.5 | 1.5 |  | 0.5 | 2 |" in text


def test_a_strip_is_small_however_large_its_frames_are() -> None:
    rng = np.random.default_rng(0)
    names = ["blurred", "sharp", "fused", "baseline", "tfp"]
    images = {name: rng.integers(0, 256, (720, 1280, 3), np.uint8) for name in names}
    scores = {name: Score(20.0, 0.5) for name in names if name != "sharp"}
    picture = strip(Panel("a", "0", images, scores), {name: "W" * 99 for name in names})
    assert picture.shape[1] == 5 * 366 + 6 and picture.shape[0] > 202 + 360
    suffix, content = encoded(picture)
    assert suffix == "jpg" and len(content) < MOST_BYTES


@pytest.mark.parametrize(
    "text",
    [
        "[click](http://evil.example)",
        "![x](http://evil.example/pixel.png)",
        "[x][y]",
        "[y]: http://evil.example",
        "http://evil.example",
        "HTTPS://evil.example",
        "ftp://evil.example",
        "www.evil.example",
        "WWW.evil.example",
        "a@evil.example",
        "<http://evil.example>",
        "<a href=x>",
    ],
)
def test_markdown_has_no_link(text: str) -> None:
    for found in (markdown(text), table([text], [[text]])):
        lower = found.lower()
        for link in ("](", "][", "]:", "://", "www.", "<"):
            assert link not in lower, found
        assert "@" not in lower.replace("\\@", "")


def test_a_cell_holds_its_text() -> None:
    for text in ("a|b", "a\\|b", "a\nb", "| --- |"):
        lines = table(["head"], [[text]]).splitlines()
        assert len(lines) == 3
        unescaped = lines[2].replace("\\\\", "").replace("\\|", "")
        assert unescaped.count("|") == 2
    assert table(["x"], [["**1.0** ± 0.2"]]).splitlines()[2] == "| **1.0** ± 0.2 |"
