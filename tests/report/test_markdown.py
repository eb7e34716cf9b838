"""The page says what the results say: figures, their spread, and files that are there."""

from __future__ import annotations

import io
import re
import statistics
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote
from xml.dom import minidom

import numpy as np
import pytest
from PIL import Image

from vrtspike.evaluation.curves import Level, Response, Robustness
from vrtspike.evaluation.results import FrameScore, Panel, Results, Score
from vrtspike.evaluation.statistics import figure, gain
from vrtspike.report.markdown import table, write_page
from vrtspike.report.picture_strip import MOST_BYTES, encoded, strip
from vrtspike.tuning.markdown import sweep_section

PSNR = {
    "blurred": {"long": [20.0, 22.0, 24.0], "short": [25.0], "dark": [19.0]},
    "tfp": {"long": [15.0, 15.0, 15.0], "short": [15.0], "dark": [15.0]},
    "baseline": {"long": [23.0, 24.0, 25.0], "short": [26.0], "dark": [21.0]},
    "fused": {"long": [26.0, 27.0, 28.0], "short": [27.0], "dark": [25.0]},
    "small (packaged)": {"long": [24.0, 25.0, 26.0], "short": [28.0], "dark": [22.0]},
}
SIZE = (48, 64)


def make_panel(sequence: str, blurred: float) -> Panel:
    rng = np.random.default_rng(0)
    images = {m: rng.integers(0, 256, (*SIZE, 3), np.uint8) for m in [*PSNR, "tfi", "sharp"]}
    return Panel(sequence, "000001", images, {name: Score(blurred, 0.5) for name in PSNR})


def make_robustness() -> Robustness:
    levels = [(0.0, 26.6), (1.0, 25.0), (2.0, 23.0)]
    found = tuple(Level(level, 0.1, Score(psnr, 0.8)) for level, psnr in levels)
    silent = tuple(Level(at, 0.1, Score(psnr, 0.8)) for at, psnr in ((0.0, 26.6), (1.0, 20.0)))
    responses = (Response("fused", "space", 0.0, found), Response("fused", "silent", 0.0, silent))
    references = {"baseline": Score(24.0, 0.7), "blurred": Score(22.0, 0.7)}
    return Robustness("baseline", references, responses, {})


def make_results(**others: float) -> Results:
    rows = [
        FrameScore(sequence, f"{number:06d}", method, Score(psnr, psnr / 40, **others))
        for method, sequences in PSNR.items()
        for sequence, frames in sequences.items()
        for number, psnr in enumerate(frames)
    ]
    spikes = {"bins": 8, "windows": [0.25, 0.5], "exposure": True, "interval": False}
    model = {"parameters": 1234, "spikes": spikes}
    protocol = {
        **{
            "tile": None,
            "overlap": 32,
            "tile_frames": 12,
            "overlap_frames": 2,
            "precision": "float32",
        },
        "frame_size": list(SIZE),
        "spike_size": None,
        "psnr": "of each | frame",
        "models": {
            name: {"weights": "small (packaged)", **model} for name in ("fused", "small (packaged)")
        },
    }
    panels = [make_panel("long", 20.0), make_panel("a <b>|", 19.0)]
    return Results("held_out", protocol, rows, panels, make_robustness())


def rows_of(text: str) -> dict[str, list[str]]:
    """Return the cells of all rows by the first one."""
    lines = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    cells = [re.split(r" ?(?<!\\)\| ?", line) for line in lines]
    return {row[0]: row[1:] for row in cells}


def write(folder: Path, results: Results, **others: list[str]) -> str:
    path = folder / "the page.md"
    write_page(path, {"street": results}, command="vrtspike evaluate --out x", **others)
    return path.read_text(encoding="utf-8")


def test_figures_are_means_over_frames_and_spreads_over_sequences() -> None:
    found = figure(make_results(), "fused", "psnr")
    assert found is not None
    assert found.mean == pytest.approx((26 + 27 + 28 + 27 + 25) / 5)
    # Of the means 27, 27 and 25 of the sequences, with n - 1.
    assert found.spread == pytest.approx(((2 * (2 / 3) ** 2 + (4 / 3) ** 2) / 2) ** 0.5)
    assert figure(make_results(), "fused", "lpips") is None


def test_gains_are_paired_by_sequence() -> None:
    differences = [27 - 24, 27 - 26, 25 - 21]
    found = gain(make_results(), "fused", "baseline")
    assert found.mean == pytest.approx(8 / 3)
    assert found.error == pytest.approx(statistics.stdev(differences) / 3**0.5)
    # The spread of the methods themselves is not that of their difference.
    assert found.error != pytest.approx(statistics.stdev([27, 27, 25]) / 3**0.5)


def test_one_sequence_has_no_spread(tmp_path: Path) -> None:
    one = Results("held_out", {}, [row for row in make_results().frames if row.sequence == "long"])
    assert figure(one, "fused", "psnr").spread is None  # type: ignore[union-attr]
    assert gain(one, "fused", "baseline").error is None
    assert rows_of(write(tmp_path, one))["Blurred input"][0] == "22.00"


def test_the_tables_hold_the_figures(tmp_path: Path) -> None:
    text = write(tmp_path, make_results(lpips=0.25, tdiff=3.125))
    rows = rows_of(text.split("| gain")[0])
    assert rows["method"] == ["PSNR (dB)", "SSIM", "LPIPS", "tDiff"]
    fused = rows["VRT with spikes: small (packaged)"]
    assert fused == ["**26.60** ± 1.15", "**0.6650** ± 0.0289", *fused[2:]]
    assert fused[2:] == ["**0.2500** ± 0.0000", "**3.12** ± 0.00"]
    assert rows["Blurred input"][0] == "22.00 ± 3.00"
    gains = rows_of(text[text.index("| gain") :].split("\n\n")[0])
    assert gains["gain (dB)"] == ["over Blurred input", "over VRT without spikes"]
    assert gains["VRT with spikes: small (packaged)"] == ["+4.33 ± 1.20", "+2.67 ± 0.88"]
    assert gains["VRT without spikes"][1] == ""
    assert gains["small (packaged)"] == ["+3.00 ± 0.00", "+1.33 ± 0.33"]
    assert "LPIPS" not in write(tmp_path, make_results())


def test_what_a_model_adds_to_its_first_guess_is_said(tmp_path: Path) -> None:
    results = make_results()
    guesses = {"fused": "first_guess", "small (packaged)": "small (packaged): first guess"}
    rows = [
        replace(row, method=guesses[row.method], score=Score(row.score.psnr - 0.75, 0.5))
        for row in results.frames
        if row.method in guesses
    ]
    facts = {"first_guess_of": "fused", "parameters": 99, "spikes": None}
    protocol = {**results.protocol, "models": {"first_guess": facts, **results.protocol["models"]}}
    assert "first guess" not in write(tmp_path, results)
    text = write(tmp_path, replace(results, frames=[*rows, *results.frames], protocol=protocol))
    assert (
        "VRT with spikes adds +0.75 dB to its first guess. "
        "small (packaged) adds +0.75 dB to its first guess.\n" in text
    )
    gains = rows_of(text[text.index("| gain") :].split("\n\n")[0])
    assert gains["gain (dB)"][-1] == "over its first guess"
    assert gains["VRT with spikes: small (packaged)"][-1] == "+0.75 ± 0.00"
    assert gains["First guess"][-1] == gains["VRT without spikes"][-1] == ""
    models = rows_of(text[text.index("| model ") :].split("\n\n")[0])
    assert models["First guess"] == ["in `small (packaged)`", "99", "none"]
    assert models["VRT with spikes"] == ["`small (packaged)`", "1,234", "8 bins, 3 images"]


def test_the_table_of_disturbed_spikes_holds_differences(tmp_path: Path) -> None:
    rows = re.findall(r"^\| (Spatial.*|No spikes.*) \|$", write(tmp_path, make_results()), re.M)
    minus = "\N{MINUS SIGN}"
    assert rows == [
        f"Spatial shift | 1 pixels | 25.00 | {minus}1.60 | +1.00",
        f"Spatial shift | 2 pixels | 23.00 | {minus}3.60 | {minus}1.00",
        f"No spikes |  | 20.00 | {minus}6.60 | {minus}4.00",
        "Spatial shift | 1.5 pixels",
        f"No spikes | under it: {minus}4.00 dB",
    ]


def test_links_are_relative_and_lead_to_small_files(tmp_path: Path) -> None:
    text = write(tmp_path, make_results())
    links = [unquote(link) for link in re.findall(r"!\[[^]]*\]\(([^ )]+)\)", text)]
    assert links == ["the page_files/street.png", "the page_files/street-robustness.svg"]
    for link in links:
        assert 0 < (tmp_path / link).stat().st_size < 200_000
    assert minidom.parse(str(tmp_path / links[1])).getElementsByTagName("polyline")
    with Image.open(tmp_path / links[0]) as image:
        assert image.width > 6 * 120  # blurred, TFP, three models, sharp
    assert "Blurred / TFP / VRT / small / small / Sharp" in text
    assert "a &lt;b>\\|, frame 000001" in text  # the hardest of the panels, and no markup


def test_the_page_is_the_same_each_time(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        text = write(tmp_path / name, make_results())
        assert str(tmp_path) not in text and not re.search(r"20\d\d-\d\d", text)
        files = sorted((tmp_path / name).rglob("*.*"))
        contents.append([(file.name, file.read_bytes()) for file in files if file.is_file()])
    assert contents[0] == contents[1] and len(contents[0]) == 3


def test_a_strip_is_small_however_large_its_frames_are() -> None:
    rng = np.random.default_rng(0)
    names = ["blurred", "sharp", "fused", "baseline", "tfp"]
    images = {name: rng.integers(0, 256, (720, 1280, 3), np.uint8) for name in names}
    scores = {name: Score(20.0, 0.5) for name in names if name != "sharp"}
    picture = strip(Panel("a", "0", images, scores), {name: "W" * 99 for name in names})
    assert picture.shape[1] == 5 * 366 + 6 and picture.shape[0] > 202 + 360
    suffix, content = encoded(picture)
    assert suffix == "jpg" and len(content) < MOST_BYTES
    assert np.asarray(Image.open(io.BytesIO(content))).shape == picture.shape


def test_the_close_up_is_the_hardest_place() -> None:
    sharp = np.zeros((120, 240, 3), np.uint8)
    blurred = sharp.copy()
    blurred[30:60, 150:180] = 200
    panel = Panel("a", "0", {"blurred": blurred, "sharp": sharp}, {"blurred": Score(20.0, 0.5)})
    picture = strip(panel, {"blurred": "Blurred", "sharp": "Sharp"})
    close = picture[-6 - 240 : -6, 6 : 6 + 240].astype(int)
    assert (close > 150).mean() == pytest.approx(90 * 90 / 240**2, abs=0.01)
    assert (picture[-6 - 240 : -6, -6 - 240 : -6] == 0).all()


def trial(name: str, **facts: object) -> dict[str, object]:
    settings = {} if name == "baseline" else {"model.fusion": name}
    nothing = dict.fromkeys(("psnr", "gain", "gain_spread", "step_s", "memory_gb", "spent_cpu_s"))
    whole = {"steps": 1000, "spent_s": 480.0, "state": "done"}
    return {"name": name, "settings": settings, **nothing, **whole, **facts}


def test_a_sweep_has_a_line_for_each_trial(tmp_path: Path) -> None:
    trials = [
        trial("baseline", psnr=28.0, spent_cpu_s=750.0, step_s=0.5, memory_gb=2.0),
        trial("temporal", psnr=30.125, gain=2.125, gain_spread=0.25, step_s=0.61, memory_gb=2.5),
        trial("gate", state="failed", steps=3, spent_s=None),
    ]
    facts = {"name": "fusion", "scored_on": "held_out", "missing": None, "trials": trials}
    text = write(tmp_path, make_results(), further=[sweep_section(facts)])
    rows = rows_of(text[text.index("## Sweep fusion") :])
    assert rows["trial"] == [
        *("settings", "steps", "min", "CPU min"),
        *("PSNR (dB)", "gain (dB)", "s/step", "GB"),
    ]
    assert rows["baseline"] == ["", "1,000", "8", "12.5", "28.00", "", "0.5", "2"]
    assert rows["temporal"] == [
        *("model.fusion=temporal", "1,000", "8", "", "30.12"),
        *("+2.12 ± 0.25", "0.61", "2.5"),
    ]
    assert rows["gate"][1:] == ["3 (failed)", *[""] * 6]


def test_text_stays_in_its_cell() -> None:
    text = table(["a", "b"], [["x | y\nz", "<i>"]])
    assert text.splitlines()[2] == "| x \\| y z | &lt;i> |"
