"""The page of an evaluation: one Markdown file of all datasets that were scored.

In: results by the name of their dataset, further sections, and the command that was typed. Out:
`<stem>.md` and `<stem>_files/`: of each dataset a strip of pictures and, where spikes were
disturbed, the curves as SVG. Links are relative. The same results give the same bytes: no date, no
machine, and no path of it but those that were typed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vrtspike.evaluation.curves import Response, Robustness
from vrtspike.evaluation.results import Panel, Results, write_text
from vrtspike.evaluation.statistics import Figure, Gain, figure, gain
from vrtspike.report.evaluation_page import counted
from vrtspike.report.methods import BASELINE, PACKAGED, guesses_among, method
from vrtspike.report.picture_strip import encoded, hardest_panel, strip
from vrtspike.report.robustness import fall_text, level_text, look_of, robustness_svg, side_name
from vrtspike.report.tables import OTHERS, signed, what_vrt_adds
from vrtspike.report.text import markdown
from vrtspike.storage.folder import write_atomically

FIGURES: dict[str, tuple[str, int, Callable[[Iterable[float]], float]]] = {
    "psnr": ("PSNR (dB)", 2, max),
    "ssim": ("SSIM", 4, max),
    **{metric: (heading, digits, best) for metric, (heading, digits, _, best) in OTHERS.items()},
}
"""Columns of the table of methods: heading, decimals, and which value is best."""

NOTE = """Mean over all frames ± standard deviation over sequences of a sequence's mean. Gains are
in dB of PSNR: mean over sequences of the difference of the two methods' means in a sequence ± its
standard error. With one sequence there is neither."""


def write_page(
    path: Path,
    results: Mapping[str, Results],
    *,
    command: str,
    further: Sequence[str] = (),
) -> None:
    """Write the page and the files that it shows; `further` sections come last."""
    files = path.with_name(f"{path.stem}_files")
    files.mkdir(parents=True, exist_ok=True)
    parts = ["# Evaluation", f"```\n{command}\n```", NOTE]
    for name, found in results.items():
        parts += _dataset(name, found, files)
    write_text(path, "\n\n".join([*parts, *further]) + "\n")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """Return a Markdown table; its first `words` columns are text, the others numbers."""
    lines = [list(map(markdown, heads)), ["---"] * words + ["---:"] * (len(heads) - words)]
    lines += [list(map(markdown, row)) for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """Return a text as Markdown code."""
    return f"`{markdown(text).replace('`', chr(39))}`"


def _dataset(name: str, results: Results, files: Path) -> list[str]:
    """Return the part of the page on one dataset, and write its files."""
    parts = [f"## {markdown(name)}", _about(results), _methods(results)]
    added = markdown(" ".join(what_vrt_adds(results)))
    picture = _picture(name, results, files)
    parts += list(filter(None, [added, _gains(results), _models(results), picture]))
    if results.robustness is not None:
        parts += _robustness(name, results.robustness, files)
    return [*parts, _protocol(results)]


def _about(results: Results) -> str:
    """Say what was scored."""
    protocol = results.protocol
    frames = len(results.frames) // len(results.methods)
    about = [counted(len(results.sequences), "sequence"), counted(frames, "frame")]
    if "frame_size" in protocol:
        height, width = protocol["frame_size"]
        about.append(f"{width} × {height} pixels")
    if protocol.get("spike_size"):
        rows, columns = protocol["spike_size"]
        about.append(f"spikes {columns} × {rows} at {protocol['spike_rate_hz']:,g} Hz")
    if protocol.get("source"):
        about.append(str(protocol["source"]))
    return f"{markdown(', '.join(about))}; split {code(results.split)}."


def _weights(results: Results, name: str) -> str | None:
    """Return what a method's weights are called, if that is known."""
    known: str | None = results.protocol.get("models", {}).get(name, {}).get("weights")
    return known


def _name(results: Results, name: str) -> str:
    """Return a method's name, with that of packaged weights."""
    weights = _weights(results, name)
    own = weights is not None and weights.endswith(PACKAGED) and weights != name
    return f"{method(name).name}: {weights}" if own else method(name).name


def _methods(results: Results) -> str:
    """Return the table of all methods; the best figure of a column is bold."""
    heads, columns = ["method"], [[_name(results, name) for name in results.methods]]
    for metric, (heading, digits, best) in FIGURES.items():
        found = [figure(results, name, metric) for name in results.methods]
        means = [f"{one.mean:.{digits}f}" for one in found if one is not None]
        if means:
            heads.append(heading)
            first = f"{best(float(mean) for mean in means):.{digits}f}"
            columns.append([_figure(one, digits, first) for one in found])
    return table(heads, zip(*columns, strict=True))


def _figure(found: Figure | None, digits: int, best: str) -> str:
    if found is None:
        return ""
    mean = f"{found.mean:.{digits}f}"
    spread = "" if found.spread is None else f" ± {found.spread:.{digits}f}"
    return f"**{mean}**{spread}" if mean == best else mean + spread


def _gains(results: Results) -> str:
    """Return the table of what each model gains over the input, the baseline and its own guess."""
    models = [name for name in results.methods if method(name).style != "control"]
    over = [name for name in ("blurred", BASELINE) if name in results.methods]
    if not models or not over:
        return ""
    heads = ["gain (dB)", *(f"over {method(other).name}" for other in over)]
    rows = [
        [
            _name(results, name),
            *("" if name == other else _gain(gain(results, name, other)) for other in over),
        ]
        for name in models
    ]
    if guesses := guesses_among(results.methods):
        heads.append("over its first guess")
        for name, row in zip(models, rows, strict=True):
            own = guesses.get(name)
            row.append("" if own is None else _gain(gain(results, name, own)))
    return table(heads, rows)


def _gain(found: Gain) -> str:
    return signed(found.mean) + ("" if found.error is None else f" ± {found.error:.2f}")


def _models(results: Results) -> str:
    """Return the table of the models: weights and size."""
    models: Mapping[str, Mapping[str, Any]] = results.protocol.get("models", {})
    rows = [
        [
            method(name).name,
            _place(results, name, facts),
            f"{facts['parameters']:,}",
            _spikes(facts["spikes"]),
        ]
        for name, facts in models.items()
    ]
    return table(["model", "weights", "parameters", "spikes"], rows, words=2) if rows else ""


def _place(results: Results, name: str, facts: Mapping[str, Any]) -> str:
    """Return what a model's weights are called; of a first guess, in which others they are."""
    if refined := facts.get("first_guess_of"):
        return f"in `{_weights(results, refined) or refined}`"
    return f"`{_weights(results, name) or name}`"


def _spikes(seen: Mapping[str, Any] | None) -> str:
    """Say what a model sees of the spikes."""
    if seen is None:
        return "none"
    images = len(seen["windows"]) + seen["exposure"] + seen["interval"]
    return f"{seen['bins']} bins" + (f", {counted(images, 'image')}" if images else "")


def _picture(name: str, results: Results, files: Path) -> str:
    """Write the strip of the hardest frame; return what shows it."""
    panel = hardest_panel(results.panels)
    if panel is None:
        return ""
    columns = _columns(results, panel)
    suffix, content = encoded(strip(panel, columns))
    for kind in ("png", "jpg"):
        (files / f"{name}.{kind}").unlink(missing_ok=True)
    write_atomically(files / f"{name}.{suffix}", content)
    place = f"{panel.sequence}, frame {panel.frame}"
    return (
        f"{_image(' / '.join(columns.values()), files / f'{name}.{suffix}')}\n\n"
        f"{markdown(place)}: of the frames shown in the report the one whose blurred input has the "
        "lowest PSNR, and three times enlarged the place where it differs most from the sharp one."
    )


def _columns(results: Results, panel: Panel) -> dict[str, str]:
    """Return the methods that a strip shows, and what is written over them."""
    shown = [name for name in panel.images if method(name).style != "control"]
    headings = {}
    for name in ("blurred", "tfp", *shown, "sharp"):
        if name in panel.images:
            weights = _weights(results, name) or ""
            own = weights.endswith(PACKAGED)
            headings[name] = weights.removesuffix(PACKAGED) if own else method(name).short
    return headings


def _image(what: str, file: Path) -> str:
    """Return what shows a file that lies in a folder beside the page."""
    alt = markdown(what).replace("[", "(").replace("]", ")")
    return f"![{alt}]({quote(f'{file.parent.name}/{file.name}')})"


def _robustness(name: str, robustness: Robustness, files: Path) -> list[str]:
    """Return the part on disturbed spikes, and write its curves."""
    held = method(robustness.reference).name
    reference = robustness.references[robustness.reference].psnr
    parts = [
        "### Disturbed spikes",
        f"PSNR in dB, mean over all frames. {markdown(held)}: {reference:.2f} dB.",
        _levels(robustness),
        _falls(robustness),
    ]
    curves = robustness_svg(robustness)
    if curves is not None:
        file = files / f"{name}-robustness.svg"
        write_text(file, curves)
        parts.append(_image("PSNR over the level of each disturbance", file))
    return parts


def _levels(robustness: Robustness) -> str:
    """Return the table of every disturbance and level."""
    several = len(robustness.models) > 1
    held = method(robustness.reference).name
    heads = ["model"] * several
    heads += ["disturbance", "level", "PSNR (dB)", "to undisturbed", f"over {held}"]
    rows = [
        [method(response.model).name] * several + row
        for response in robustness.responses
        for row in _level_rows(robustness, response)
    ]
    return table(heads, rows, words=2 + several)


def _level_rows(robustness: Robustness, response: Response) -> list[list[str]]:
    reference = robustness.references[robustness.reference].psnr
    at_rest = next(at for at in response.levels if at.level == response.undisturbed).score.psnr
    rows = []
    for at in response.levels:
        if at.level != response.undisturbed:
            level = "" if response.kind == "silent" else level_text(response.kind, at.level)
            psnr = at.score.psnr
            differences = [signed(psnr - other) for other in (at_rest, reference)]
            rows.append([look_of(response.kind).name, level, f"{psnr:.2f}", *differences])
    return rows


def _falls(robustness: Robustness) -> str:
    """Return the table of the levels at which each model falls under the reference."""
    held = method(robustness.reference).name
    heads = ["disturbance", *(f"{method(m).name} falls under {held} at" for m in robustness.models)]
    rows = []
    for kind in robustness.kinds:
        found = robustness.of(kind)
        for side in robustness.falls_at(found[0]):
            texts = [fall_text(robustness, response, side) for response in found]
            rows.append([side_name(kind, side), *texts])
    return table(heads, rows, words=len(heads))


def _protocol(results: Results) -> str:
    """Say how the numbers were made, in a paragraph."""
    protocol = results.protocol
    said_of = [
        f"{FIGURES[metric][0].removesuffix(' (dB)')}: {protocol[metric]}"
        for metric in FIGURES
        if protocol.get(metric)
    ]
    said_of += [f"{name.upper()}: {protocol[name]}" for name in ("tfp", "sdm") if name in protocol]
    if "comparison" in protocol:
        said_of.insert(0, f"Compared as {protocol['comparison']}")
    if "tile_frames" in protocol:
        tile = protocol["tile"]
        area = (
            f"tiles of {tile} that share {protocol['overlap']} pixels" if tile else "whole frames"
        )
        said_of.append(
            f"Models see {area}, {protocol['tile_frames']} frames at once, clips share "
            f"{protocol['overlap_frames']}, {protocol['precision']}"
        )
    return f"Protocol. {markdown('. '.join(said_of) or 'Not known')}."
