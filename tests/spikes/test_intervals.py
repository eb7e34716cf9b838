"""Figures of intervals equal a naive count, pixel by pixel, and what is known of genuine files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from vrtspike.report.spikes import interval_chart
from vrtspike.spikes import stream as module
from vrtspike.spikes.intervals import histogram_bars, measure_intervals
from vrtspike.spikes.stream import SpikeStream

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("piece", [1, 7, 1000])
@pytest.mark.parametrize("rate", [0.02, 0.3, 0.9])
def test_figures_equal_a_naive_count(
    monkeypatch: pytest.MonkeyPatch, piece: int, rate: float
) -> None:
    spikes = np.random.default_rng(0).random((60, 5, 6)) < rate * np.linspace(0, 1.1, 6)
    monkeypatch.setattr(module, "PIECE_BYTES", piece * 30)
    figures = measure_intervals(SpikeStream.from_array(spikes))
    trains = [np.flatnonzero(spikes[:, y, x]).tolist() for y in range(5) for x in range(6)]
    pixels = [[b - a for a, b in pairwise(train)] for train in trains]
    every = np.array([isi for pixel in pixels for isi in pixel])
    np.testing.assert_array_equal(figures.histogram, np.bincount(every, minlength=61))
    assert figures.mean_rate == pytest.approx(spikes.mean())
    assert figures.highest_rate == pytest.approx(spikes.mean(axis=0).max())
    assert figures.never_fired == pytest.approx(np.mean([not train for train in trains]))
    assert figures.never_fired >= 1 / 6, "the first column is dark"
    assert figures.mean_isi == pytest.approx(every.mean())
    assert figures.shortest_isi == every.min()
    assert figures.isi_cv == pytest.approx(every.std() / every.mean())
    each = [np.std(pixel) / np.mean(pixel) for pixel in pixels if len(pixel) >= 2]
    assert figures.pixel_isi_cv == pytest.approx(np.median(each) if each else None)
    assert "histogram" not in figures.facts() and figures.facts()["steps"] == 60


def test_steady_light_has_intervals_of_one_length() -> None:
    spikes = np.zeros((40, 2, 3), bool)
    spikes[4::5] = True
    figures = measure_intervals(SpikeStream.from_array(spikes))
    assert (figures.mean_isi, figures.shortest_isi) == (5.0, 5)
    assert figures.isi_cv == figures.pixel_isi_cv == 0.0


@pytest.mark.parametrize("fired", [0, 1])
def test_streams_without_an_interval_have_no_figures_of_them(fired: int) -> None:
    spikes = np.zeros((9, 2, 4), bool)
    spikes[:fired] = True
    figures = measure_intervals(SpikeStream.from_array(spikes))
    assert figures.never_fired == 1 - fired
    assert (
        figures.mean_isi is figures.shortest_isi is figures.isi_cv is figures.pixel_isi_cv is None
    )
    assert "no pixel fired twice" in interval_chart(figures)


@pytest.mark.parametrize("longest", [3, 30, 96, 97, 5000])
def test_bars_hold_every_interval_once(longest: int) -> None:
    histogram = np.zeros(6000, np.int64)
    histogram[1 : longest + 1] = np.arange(longest, 0, -1)
    histogram[5999] = 1
    size, shares = histogram_bars(histogram)
    assert len(shares) <= 97
    assert shares.sum() == pytest.approx(1)
    assert shares[0] == pytest.approx(histogram[1 : 1 + size].sum() / histogram.sum())
    assert shares[-1] <= 0.0101 + 1 / histogram.sum()


def test_the_chart_shows_the_bars_and_the_figures() -> None:
    spikes = np.zeros((600, 4, 8), bool)
    spikes[:, :3, :] = (np.arange(600) % 2 == 0)[:, None, None]
    spikes[:, 3, :] = (np.arange(600) % 5 == 0)[:, None]
    root = ElementTree.fromstring(interval_chart(measure_intervals(SpikeStream.from_array(spikes))))
    titles = [found.text or "" for found in root.iter(f"{SVG}title")]
    shares = dict(title.split(": ") for title in titles)
    several = {name for name, share in shares.items() if share != "0.00%"}
    assert several == {"2", "5"}, "intervals of 2 and of 5"
    assert float(shares["2"].rstrip("%")) > 5 * float(shares["5"].rstrip("%"))
    texts = " ".join(found.text or "" for found in root.iter(f"{SVG}text"))
    assert "600 steps" in texts and "shortest 2" in texts


def test_genuine_files_have_the_intervals_that_are_known_of_them(shared: Path) -> None:
    gopro = SpikeStream.open(shared / "data/spk_gopro_000226.dat", height=360, width=640)
    figures = measure_intervals(gopro)
    assert (figures.shortest_isi, figures.highest_rate) == (2, 0.5), "threshold 2"
    assert figures.never_fired == pytest.approx(1 - gopro[:].any(axis=0).mean())
    reds = SpikeStream.open(shared / "data/reds_203_part1.dat", height=250, width=400)
    figures = measure_intervals(reds)
    assert 0.5 < figures.highest_rate <= 0.6, "the rate of white"
    assert figures.mean_rate == pytest.approx(reds[:].mean())
