"""Align logs keep every exposure, and refuse every line that is none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from tests.datasets.align_logs import centered, write_align_log
from vrtspike.datasets.align_log import AlignEntry, exposure_steps, read_align_log
from vrtspike.errors import ConfigError, DataFormatError

HEADER = "frame_idx,t0,t1,event_count,seq\n"
LOG = HEADER + "5,0.018750,0.022917,120,GOPR0372_07_00\n5,0.1,0.2,0,b\n6,0.2,0.3,7,b\n"


def test_a_log_is_read_by_sequence_and_frame(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    log = read_align_log(tmp_path / "log.csv")
    assert log.entry("b", 6) == AlignEntry("b", 6, 0.2, 0.3, 7)
    assert [(e.sequence, e.frame) for e in log] == [("GOPR0372_07_00", 5), ("b", 5), ("b", 6)]
    assert len(log) == 3
    with pytest.raises(DataFormatError, match=r"no entry of this frame.*frame 7 .*one of 5, 6"):
        log.entry("b", 7)
    with pytest.raises(DataFormatError, match=r"no such sequence.*got c.*GOPR0372_07_00, b"):
        log.entry("c", 5)


def test_what_earlier_systems_wrote_is_read(tmp_path: Path) -> None:
    names = ["GOPR0372_07_00", 'comma, "quote" and 時間']
    entries = [
        centered(name, frame, averaged=e, fps=240.0, event_count=frame * e)
        for name in names
        for frame, e in [(9, 7), (20, 11), (33, 13)]
    ]
    write_align_log(tmp_path / "a log.csv", entries)
    for entry, again in zip(entries, read_align_log(tmp_path / "a log.csv"), strict=True):
        assert (again.sequence, again.frame) == (entry.sequence, entry.frame)
        assert again.event_count == entry.event_count
        assert (again.t0, again.t1) == pytest.approx((entry.t0, entry.t1), abs=5.1e-7)


@pytest.mark.parametrize("averaged", [2, 3, 7, 8, 33, 65])
@pytest.mark.parametrize(("fps", "rate"), [(240, 1920), (30, 30), (1000, 1000), (24, 20000)])
def test_steps_of_equal_exposures_are_equally_many(
    tmp_path: Path, averaged: int, fps: int, rate: int
) -> None:
    """Half steps count upwards, through the rounding of the file to microseconds."""
    frames = range(averaged, averaged + 200)
    entries = [centered("a", frame, averaged=averaged, fps=fps, event_count=0) for frame in frames]
    write_align_log(tmp_path / "log.csv", entries)
    log = read_align_log(tmp_path / "log.csv")
    for frame in frames:
        exact = [(frame + sign * Fraction(averaged - 1, 2)) * rate / fps for sign in (-1, 1)]
        expected = tuple(int(x + Fraction(1, 2)) for x in exact)
        entry = log.entry("a", frame)
        if all((x + Fraction(1, 2)) % 1 < Fraction(9, 10) for x in exact):
            assert exposure_steps(entry, rate) == expected
        assert exposure_steps(entry, rate, 16) == tuple(x + 16 for x in exposure_steps(entry, rate))
        if (averaged - 1) * rate % fps == 0:
            start, stop = exposure_steps(entry, rate)
            assert stop - start == (averaged - 1) * rate // fps


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("5,0.2,0.2,1,b", r"exposure is empty.*got \[0.2, 0.2\)"),
        ("5,0.3,0.2,1,b", "exposure is empty"),
        ("5,0.0,0.0,0,b", "exposure is empty"),
        ("5,nan,0.2,1,b", "finite and not negative"),
        ("5,0.1,inf,1,b", "finite and not negative"),
        ("5,-0.1,0.2,1,b", "finite and not negative"),
        ("-5,0.1,0.2,1,b", "frame's number is negative"),
        ("5,0.1,0.2,-1,b", "number of events is negative"),
        ("5.5,0.1,0.2,1,b", r"the line is no entry.*got 5\.5,0\.1"),
        ("5,0.1,0_2,1,b", "the line is no entry"),
        ("5,,0.2,1,b", "the line is no entry"),
        ("5,0.1,0.2,1,", "names no sequence"),
        ("5,0.1,0.2,1", "no entry.*got 4 fields"),
        ("5,0.1,0.2,1,b,c", "no entry.*got 6 fields"),
        ('5,0.1,0.2,1,"b', "not readable as CSV"),
        ("3,0.1,0.2,1,a", "second entry of a frame.*got frame 3 of sequence a"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"{HEADER}3,0.1,0.2,4,a\n{line}\n9,0.1,0.2,4,z\n")
    with pytest.raises(DataFormatError, match=message) as caught:
        read_align_log(path)
    assert f"{path}, line " in str(caught.value)
    assert "CSV" in message or f"{path}, line 3]" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the align log is empty"),
        (HEADER.encode(), "has no entry"),
        (b"frame,t0,t1,event_count,seq\n1,0,1,0,a\n", r"another header.*line 1\]: got frame,t0"),
        (b"1,0.1,0.2,0,a\n", "another header"),
        (b"\xff\xfe\x00", "cannot read the align log"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(DataFormatError, match=message):
        read_align_log(tmp_path / "log.csv")
    with pytest.raises(DataFormatError, match="no such align log"):
        read_align_log(tmp_path / "none.csv")


def test_spreadsheets_mark_and_line_ends_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"\xef\xbb\xbf" + LOG.replace("\n", "\r\n").encode())
    assert len(read_align_log(tmp_path / "log.csv")) == 3


def test_an_entry_that_is_none_is_refused() -> None:
    with pytest.raises(DataFormatError, match="frame 2 of sequence 'a'"):
        AlignEntry("a", 2, 0.3, float("nan"), 0)


def test_impossible_rates_are_refused() -> None:
    entry = AlignEntry("a", 1, 0.1, 0.2, 0)
    for rate in (0.0, float("nan"), float("inf"), -5.0):
        with pytest.raises(ConfigError, match="rate_hz must be positive and finite"):
            exposure_steps(entry, rate)
    with pytest.raises(DataFormatError, match="shorter than a step"):
        exposure_steps(entry, 2.0)
    for far, rate in ((1e306, 1e6), (1e306, 1000.0), (1e13, 1000.0)):
        with pytest.raises(DataFormatError, match=r"beyond any stream \[frame 1 of sequence a\]"):
            exposure_steps(AlignEntry("a", 1, 0.0, far, 0), rate)
