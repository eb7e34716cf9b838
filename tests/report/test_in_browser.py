"""A browser shows the report as it lies on the disk, and its controls do what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.report.test_evaluation_page import make_results, make_robustness, write

Browse = Callable[..., str]

DRIVE = """
<script>
{
  const found = {};
  const compare = document.querySelector(".compare");
  const right = compare.querySelector(".layer.right"), left = compare.querySelector(".layer.left");
  const picture = (layer) => getComputedStyle(layer).backgroundImage;
  found.split = [getComputedStyle(right).clipPath];
  const slider = compare.querySelector("input");
  slider.value = 20;
  slider.dispatchEvent(new Event("input"));
  found.split.push(getComputedStyle(right).clipPath);

  const select = compare.querySelector('select[data-side="left"]');
  const before = picture(left), untouched = picture(right);
  const sharp = [...select.options].find((option) => option.text === "Sharp frame");
  select.value = sharp.value;
  select.dispatchEvent(new Event("change"));
  found.changed = [picture(left) !== before, picture(right) === untouched];
  found.isSharp = left.classList.contains(sharp.value) && picture(left).startsWith('url("data:');

  document.querySelector("button.theme").click();
  found.theme = document.documentElement.dataset.theme;

  const flicker = compare.querySelector(".flicker");
  const blinking = () => ["blink", "other"].map((name) => compare.classList.contains(name));
  const seen = () => [flicker.getAttribute("aria-pressed"), ...blinking(),
    getComputedStyle(right).clipPath, getComputedStyle(compare.querySelector(".divider")).display];
  flicker.click();
  found.flicker = [seen()];
  setTimeout(() => {
    found.flicker.push(seen());
    flicker.click();
    found.flicker.push(seen());
    // A page that is wider than the screen scrolls sideways; its tables may, in their boxes.
    const root = document.documentElement;
    found.width = [root.scrollWidth, root.clientWidth];
    const right_of = (element) => element.getBoundingClientRect().right;
    found.overhang = [...document.querySelectorAll("section, .tile, article, select, h1, h2, h3")]
      .filter((element) => right_of(element) > root.clientWidth)
      .map((element) => element.outerHTML.slice(0, 80));
    found.cut = [...document.querySelectorAll("table")].filter((table) => {
      const box = table.closest(".scroll, td, .split > div") ?? table.parentElement;
      return right_of(table) > right_of(box) + 1 && getComputedStyle(box).overflowX !== "auto";
    }).length;
    found.colours = [...document.querySelectorAll(".summary .key")]
      .map((key) => getComputedStyle(key).backgroundColor);
    found.fetched = performance.getEntriesByType("resource").map((entry) => entry.name);
    const probe = document.createElement("pre");
    probe.id = "found";
    probe.textContent = JSON.stringify(found);
    document.body.append(probe);
  }, 900);
}
</script>
"""


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no Chromium on this machine")

    def run(page: Path, *flags: str) -> str:
        always = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        always += ["--hide-scrollbars", "--disable-background-networking", "--disable-sync"]
        always += ["--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"]
        done = subprocess.run(
            [browser, *always, *flags, page.as_uri()], check=True, capture_output=True, timeout=100
        )
        return done.stdout.decode()

    return run


@pytest.fixture
def page(tmp_path: Path) -> Path:
    results = make_results(lpips=0.25, psnr_y=27.5, ssim_y=0.75, tdiff=3.0, tlp=0.0625)
    write(tmp_path / "report.html", replace(results, robustness=make_robustness()))
    return tmp_path / "report.html"


def drive(browse: Browse, page: Path, *flags: str) -> dict[str, Any]:
    """Use the page as a reader does, and return what the script found."""
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", f"{DRIVE}</body>"), encoding="utf-8")
    dom = browse(page, "--virtual-time-budget=5000", "--dump-dom", *flags)
    probe = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    assert probe is not None, "the script did not reach its end"
    found: dict[str, Any] = json.loads(unescape(probe[1]))
    return found


def test_slider_choice_flicker_and_theme_do_what_they_say(browse: Browse, page: Path) -> None:
    found = drive(browse, page, "--window-size=1200,1000")
    assert found["split"] == ["inset(0px 0px 0px 50%)", "inset(0px 0px 0px 20%)"]
    assert found["changed"] == [True, True] and found["isSharp"]
    assert found["theme"] == "dark"
    shown, other, off = found["flicker"]
    assert shown == ["true", True, False, "inset(0px 0px 0px 0%)", "none"]
    assert other == ["true", True, True, "inset(0px 0px 0px 100%)", "none"]
    assert off == ["false", False, False, "inset(0px 0px 0px 20%)", "block"]


@pytest.mark.parametrize("width", [500, 800, 1300])
def test_nothing_is_fetched_and_nothing_hangs_over_the_side(
    browse: Browse, page: Path, width: int
) -> None:
    found = drive(browse, page, f"--window-size={width},1000")
    assert [name for name in found["fetched"] if not name.startswith("data:")] == []
    assert found["width"] == [width, width]
    assert found["overhang"] == [] and found["cut"] == 0
    assert len(set(found["colours"])) == len(found["colours"]) == 6


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_shows_it(browse: Browse, page: Path, theme: str, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    dark = ["--force-dark-mode"] if theme == "dark" else []
    browse(page, *dark, "--window-size=1200,2400", f"--screenshot={picture}")
    pixels = np.asarray(Image.open(picture).convert("L"))
    corner = int(pixels[5, 5])
    assert corner > 200 if theme == "light" else corner < 60
    assert pixels[500:2000].std() > 20
