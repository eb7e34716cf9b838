"""Logs, streams and names as other programs write them, beside frames of their own geometry."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from tests.video.video_files import encode, moving
from vrtspike.datasets.align_log import read_align_log
from vrtspike.datasets.footage import Footage, Source, open_footage
from vrtspike.errors import DataFormatError
from vrtspike.spikes.packed_writer import write_dat
from vrtspike.storage.names import in_order

HEADER = "frame_idx,t0,t1,event_count,seq"
ROWS = [f"{n},{n * 0.04:.6f},{n * 0.04 + 0.035:.6f},100,clip" for n in range(4)]
PLAIN = [HEADER, *ROWS]
SEMICOLONS = [line.replace(",", ";") for line in PLAIN]
LOGS = {
    "blank lines": "\n\n".join(PLAIN) + "\n\n\n",
    "CR LF": "\r\n".join(PLAIN) + "\r\n\r\n",
    "CR CR LF": "\r\r\n".join(PLAIN),
    "CR": "\r".join(PLAIN),
    "trailing commas": ",\n".join(PLAIN) + ",\n,,,,,\n",
    "tabs": "\n".join(PLAIN).replace(",", "\t"),
    "semicolons": "\n".join(SEMICOLONS),
    "decimal commas": "sep=;\n" + "\n".join(SEMICOLONS).replace(".", ","),
    "decimal numbers": "\n".join([HEADER, *(f"{n}.0{row[1:]}" for n, row in enumerate(ROWS))]),
    "Ctrl-Z": "\n".join(PLAIN) + "\n\x1a",
    "comments": "#TYPE x\n" + "\n# a line\n".join(PLAIN),
    "quotes": "\n".join('"' + line.replace(",", '","') + '"' for line in PLAIN),
    "another order": "\n".join(
        ",".join([cells[-1], *cells[:-1]]) for cells in (line.split(",") for line in PLAIN)
    ),
}


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_logs_of_spreadsheets_are_read(name: str, encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "align.csv"
    file.write_bytes(LOGS[name].encode(encoding))
    found = [(e.frame, round(e.t0, 6), e.t1, e.event_count) for e in read_align_log(file)]
    assert found == [(n, round(n * 0.04, 6), round(n * 0.04 + 0.035, 6), 100) for n in range(4)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}\n0,0,0.1,1,clip\n1,0.1,0.2,clip\n", r"line 3\].*got 4 fields.*Fix: correct"),
        (f"{HEADER}\n0,0,0.1,1,clip,more\n", r"line 2\].*got 6 fields.*Fix"),
        (f"{HEADER}\n0.5,0,0.1,1,clip\n", r"line 2\].*a whole number, not 0\.5.*Fix"),
        ("0,0,0.1,1,clip\n", r"another header.*Fix: write frame_idx"),
        ("frame_idx;t0;t1;event_count;seq\n0;1.000,5;0.1;1;clip\n", r"line 2\].*Fix"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_line_and_the_fix(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "align.csv").write_text(text)
    with pytest.raises(DataFormatError, match=message):
        read_align_log(tmp_path / "align.csv")


def test_decimal_names_are_in_the_order_of_their_numbers() -> None:
    assert in_order(["0.5.png", "0.25.png", "1.0.png"]) == ["0.25.png", "0.5.png", "1.0.png"]
    assert in_order(["0", "0.04", "1e-05"]) == ["0", "1e-05", "0.04"]
    assert in_order(["t-0.5", "t-0.25"]) == ["t-0.25", "t-0.5"]
    assert in_order(["1.10", "1.9", "1.8"]) == ["1.8", "1.9", "1.10"], "counted, not decimal"
    assert in_order(["a10", "a9"]) == ["a9", "a10"]


def camera(height: int, width: int, each: int) -> dict[str, object]:
    spike = {"height": height, "width": width, "threshold": 2.0, "rate_hz": 25.0 * each}
    return {"spike": spike, "steps_per_frame": each, "exposure": [0, each], "target_step": 0}


def clip(
    folder: Path,
    *,
    steps: int = 640,
    each: int = 64,
    grid: tuple[int, int] = (24, 32),
    milliseconds: list[int] | None = None,
) -> Footage:
    """Open ten frames of 48x64 with a stream."""
    count = 10 if milliseconds is None else len(milliseconds)
    encode(folder / "a.mkv", moving(count), milliseconds=milliseconds)
    write_dat(folder / "a.dat", np.zeros((steps, *grid), bool))
    return open_footage(Source("a", folder / "a.mkv", folder / "a.dat"), camera(*grid, each))


def test_steps_left_over_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert clip(tmp_path).clip.frames[9].spikes[0].stop == 640
        assert not caplog.messages
        clip(tmp_path, steps=645)
    assert "leave the last 5 of 645 steps" in caplog.text


@pytest.mark.parametrize("each", range(59, 64))
def test_another_number_of_steps_that_fits_exactly_is_named(each: int, tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match=r"--steps-per-frame.* to 64, or"):
        clip(tmp_path, each=each)


def test_frames_at_uneven_times_want_an_align_log(tmp_path: Path) -> None:
    uneven = [0, 40, 80, 120, 1120, 1160]
    with pytest.raises(DataFormatError, match=r"not evenly spaced.*0\.04 to 1 s.*align\.csv"):
        clip(tmp_path, steps=6 * 64, milliseconds=uneven)
    log = "\n".join(f"{n},{t / 1000},{t / 1000 + 0.04},0,a" for n, t in enumerate(uneven))
    (tmp_path / "align.csv").write_text(f"{HEADER}\n{log}\n")
    steps = round(1.2 * 25 * 64)
    assert clip(tmp_path, steps=steps, milliseconds=uneven).clip.frames[4].spikes[0].start == 1792
    (tmp_path / "align.csv").unlink()
    rounded = [round(n * 1000 / 29.97) for n in range(10)]
    assert clip(tmp_path, milliseconds=rounded).frames == 10


@pytest.mark.parametrize(
    ("grid", "fix"), [((32, 24), "exchange the height"), ((20, 32), "state a registration")]
)
def test_a_grid_that_does_not_fit_the_frames_is_refused(
    grid: tuple[int, int], fix: str, tmp_path: Path
) -> None:
    with pytest.raises(DataFormatError, match=f"no whole number of times coarser.*Fix: {fix}"):
        clip(tmp_path, grid=grid)


def test_the_shared_examples(shared: Path) -> None:
    faults = shared / "data/faults"
    if not faults.is_dir():
        pytest.skip("no shared/data/faults")
    for file in (faults / "13_csv").iterdir():
        assert read_align_log(file).entry("clip", 3).t1 == 0.155
    folder = faults / "02_geometry_swapped"
    with pytest.raises(DataFormatError):
        open_footage(Source("a", folder / "vfr.mp4", folder / "swap.dat"))
    folder = faults / "06_vfr_spikes"
    with pytest.raises(DataFormatError, match="not evenly spaced"):
        open_footage(Source("a", folder / "vfr.mp4", folder / "vfr_spk.dat"), camera(32, 48, 64))
