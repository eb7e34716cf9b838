"""A spreadsheet takes what we write for text and numbers, and we read back what we wrote."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.datasets.align_logs import write_align_log
from vrtspike.datasets.align_log import AlignEntry, read_align_log
from vrtspike.evaluation.results import FrameScore, Results
from vrtspike.evaluation.score import Score
from vrtspike.storage.csv_text import cell_text, csv_cell

FORMULAS = [
    *("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")', "-a", "--"),
    *("\uff1d1+1", "\uff0b1", "\uff0d1", "\uff201", "=cmd|' /C calc'!A0", "+", "-", "=", "@"),
]
PLAIN = ["", "a", "a=1", "0001", "-0.5", "+3", "-1e-3", "1.5", "'a'", "'", "a-b", "größer", " x"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_written_as_text(text: str) -> None:
    assert csv_cell(text) == f"'{text}" and cell_text(f"'{text}") == text


@pytest.mark.parametrize("text", PLAIN)
def test_everything_else_stays_as_it_is(text: str) -> None:
    assert csv_cell(text) == text and cell_text(text) == text


@pytest.mark.parametrize("text", [*FORMULAS, *PLAIN, "'=1", "''=1", "'-x"])
def test_what_is_written_is_read_back(text: str) -> None:
    assert cell_text(str(csv_cell(text))) == text


@pytest.mark.parametrize("value", [None, 1, -1, 2.5, True])
def test_values_that_are_no_text_stay(value: object) -> None:
    assert csv_cell(value) is value


@pytest.mark.parametrize("name", ["=1+1", "-a", "'=x", "@y", "plain", "'z'"])
def test_an_align_log_that_marks_its_text_keeps_its_sequences(name: str, tmp_path: Path) -> None:
    write_align_log(tmp_path / "align.csv", [AlignEntry(str(csv_cell(name)), 0, 0.0, 0.5, 3)])
    assert list(read_align_log(tmp_path / "align.csv").sequences) == [name]


def test_results_hold_no_formula(tmp_path: Path) -> None:
    score = Score(-1.5, 0.5)
    results = Results("=s", {}, [FrameScore("@a", "-b", "+c", score)])
    results.write_csv(tmp_path / "results.csv")
    (_, row) = csv.reader((tmp_path / "results.csv").read_text().splitlines())
    assert row[:4] == ["'=s", "'@a", "'-b", "'+c"] and row[4] == "-1.500000"
