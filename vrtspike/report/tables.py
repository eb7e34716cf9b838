"""The tables of a report: all methods, and all sequences.

In: the results of an evaluation. Out: HTML. The best number of a column is bold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from vrtspike.evaluation.results import Results, Score
from vrtspike.report.methods import BASELINE, guesses_among, method
from vrtspike.report.text import escape

NOTE = """PSNR in dB and SSIM on uint8-rounded RGB, whole frames, mean over all frames; by clip: the
mean over sequences. TFP and TFI are gray, so the colour they lack counts against them."""
FEW = 9
"""Columns of a table that has room to spare."""
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


def summary_table(results: Results) -> str:
    """Return the table of all methods, with what each gains over the input and the baseline."""
    scores = {name: results.over_frames(name) for name in results.methods}
    columns = {
        "Method": {name: _name(name) for name in scores},
        "PSNR": _numbers({name: score.psnr for name, score in scores.items()}, 2),
        "": _lollipops({name: score.psnr for name, score in scores.items()}),
        "over blurred": _gains(scores, "blurred"),
    }
    if BASELINE in scores:
        columns["over baseline"] = _gains(scores, BASELINE)
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
    heads = "".join(f'<th scope="col">{head}</th>' for head in columns)
    rows = "".join(
        f"<tr>{''.join(cells[name] for cells in columns.values())}</tr>" for name in scores
    )
    added = "".join(f"<p>{escape(sentence)}</p>" for sentence in what_vrt_adds(results))
    style = "summary many" if len(columns) > FEW else "summary"
    return f"""
<section><h2>Summary</h2><div class="scroll"><table class="{style}">
<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>
{added}<p class="note">{" ".join(filter(None, notes))}</p></section>"""


def what_vrt_adds(results: Results) -> list[str]:
    """Return a sentence for each model that refines a first guess: what it adds to it."""
    sentences = []
    for name, guess in guesses_among(results.methods).items():
        gain = results.over_frames(name).psnr - results.over_frames(guess).psnr
        sentences.append(f"{method(name).name} adds {signed(gain)} dB to its first guess.")
    return sentences


def sequence_table(scores: Mapping[str, Mapping[str, Score]]) -> str:
    """Return the PSNR of every method in every sequence."""
    methods = next(iter(scores.values()))
    heads = "".join(f'<th scope="col">{escape(method(name).short)}</th>' for name in methods)
    rows = []
    for sequence, found in scores.items():
        cells = _numbers({name: score.psnr for name, score in found.items()}, 2)
        rows.append(f'<tr><th scope="row">{escape(sequence)}</th>{"".join(cells.values())}</tr>')
    return f"""<div class="scroll tall"><table class="dense">
<thead><tr><th scope="col">Sequence</th>{heads}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>"""


def signed(value: float) -> str:
    """Write a gain with its sign."""
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def _name(name: str) -> str:
    look = method(name)
    return (
        f'<th scope="row"><i class="key style-{look.style}"></i>{escape(look.name)}'
        f"<small>{escape(look.note)}</small></th>"
    )


def _numbers(
    values: Mapping[str, float],
    digits: int,
    *,
    best: Callable[[Iterable[float]], float] = max,
) -> dict[str, str]:
    """Return the cells of a column of numbers."""
    texts = {name: f"{value:.{digits}f}" for name, value in values.items()}
    first = f"{best(values.values()):.{digits}f}"
    return {
        name: f"<td>{f'<b>{text}</b>' if text == first else text}</td>"
        for name, text in texts.items()
    }


def _gains(scores: Mapping[str, Score], reference: str) -> dict[str, str]:
    """Return the cells of a column of PSNR gains over one method."""
    cells = {}
    for name, score in scores.items():
        gain = score.psnr - scores[reference].psnr
        style = "up" if gain >= 0.005 else "down" if gain <= -0.005 else "muted"
        text = "" if name == reference else signed(gain)
        cells[name] = f'<td class="{style}">{text}</td>'
    return cells


def _lollipops(psnr: Mapping[str, float]) -> dict[str, str]:
    """Return cells that show how far each method got from the blurred input."""
    lowest = min(psnr.values())
    span = max(max(psnr.values()) - lowest, 1e-6)
    cells = {}
    for name, value in psnr.items():
        start, at = (100 * (x - lowest) / span for x in (psnr["blurred"], value))
        stem = f"left:{min(start, at):.1f}%;width:{abs(at - start):.1f}%"
        cells[name] = (
            f'<td class="reach"><div class="style-{method(name).style}">'
            f'<s style="left:{start:.1f}%"></s><i style="{stem}"></i>'
            f'<b style="left:{at:.1f}%"></b></div></td>'
        )
    return cells
