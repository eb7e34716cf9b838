"""The figures of a report's tables: all methods, and all sequences.

In: the results of an evaluation. Out: cells. The best number of a column is marked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from vrtspike.evaluation.results import Results
from vrtspike.report.methods import BASELINE, guesses_among, method
from vrtspike.report.page import Cell, signed

NOTE = """PSNR in dB and SSIM on uint8-rounded RGB, whole frames, mean over all frames; by clip: the
mean over sequences. TFP and TFI are gray, so the colour they lack counts against them."""
OTHERS: dict[str, tuple[str, int, str, Callable[[Iterable[float]], float]]] = {
    "lpips": ("LPIPS", 4, "", min),
    "psnr_y": ("PSNR Y", 2, "Y: luma (BT.601) alone.", max),
    "ssim_y": ("SSIM Y", 4, "", max),
    "tdiff": (
        "tDiff",
        2,
        "tDiff: how far the change from frame to frame is from the sharp video's, "
        "in gray levels of 255.",
        min,
    ),
    "tlp": ("tLP", 4, "tLP: the same of LPIPS from frame to frame.", min),
}
"""Metrics beside PSNR and SSIM: heading, decimals, what to say of it, and which value is best."""


def summary_columns(results: Results) -> tuple[dict[str, dict[str, Cell]], str]:
    """Return the columns of the table of all methods, and the note under it."""
    scores = {name: results.over_frames(name) for name in results.methods}
    psnr = {name: score.psnr for name, score in scores.items()}
    columns = {"PSNR": _numbers(psnr, 2), "over blurred": _gains(psnr, "blurred")}
    if BASELINE in scores:
        columns["over baseline"] = _gains(psnr, BASELINE)
    columns["SSIM"] = _numbers({name: score.ssim for name, score in scores.items()}, 4)
    notes = [NOTE]
    for metric, (heading, digits, note, best) in OTHERS.items():
        values = {name: score.as_dict()[metric] for name, score in scores.items()}
        known = {name: value for name, value in values.items() if value is not None}
        if len(known) == len(scores):
            columns[heading] = _numbers(known, digits, best=best)
            notes.append(note)
    clips = {name: results.over_clips(name).psnr for name in scores}
    columns["PSNR by clip"] = _numbers(clips, 2)
    return columns, " ".join(filter(None, notes))


def what_vrt_adds(results: Results) -> list[str]:
    """Return a sentence for each model that refines a first guess: what it adds to it."""
    sentences = []
    for name, guess in guesses_among(results.methods).items():
        gain = results.over_frames(name).psnr - results.over_frames(guess).psnr
        sentences.append(f"{method(name).name} adds {signed(gain)} dB to its first guess.")
    return sentences


def sequence_rows(results: Results) -> list[list[Cell]]:
    """Return the PSNR of every method in every sequence."""
    rows = []
    for sequence in results.sequences:
        psnr = {name: results.over_frames(name, sequence).psnr for name in results.methods}
        rows.append([Cell(sequence), *_numbers(psnr, 2).values()])
    return rows


def _numbers(
    values: Mapping[str, float],
    digits: int,
    *,
    best: Callable[[Iterable[float]], float] = max,
) -> dict[str, Cell]:
    """Return the cells of a column of numbers."""
    first = f"{best(values.values()):.{digits}f}"
    texts = {name: f"{value:.{digits}f}" for name, value in values.items()}
    return {name: Cell(text, "best" if text == first else "") for name, text in texts.items()}


def _gains(psnr: Mapping[str, float], reference: str) -> dict[str, Cell]:
    """Return the cells of a column of PSNR gains over one method."""
    cells = {}
    for name, value in psnr.items():
        gain = value - psnr[reference]
        style = "up" if gain >= 0.005 else "down" if gain <= -0.005 else "muted"
        cells[name] = Cell("" if name == reference else signed(gain), style)
    return cells
