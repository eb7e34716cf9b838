"""The command that scores models: results and a report of each dataset, and a page of them all."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrtspike.cli.console import (
    Debug,
    JsonFile,
    OptionalConfigFile,
    Overrides,
    command,
    load,
    print_tables,
    say,
    short,
)
from vrtspike.errors import ConfigError
from vrtspike.runtime.ray_session import resolve_path, resolve_place

if TYPE_CHECKING:
    from vrtspike.cli.model_choice import ModelChoice
    from vrtspike.config.config import Config
    from vrtspike.evaluation.results import Results

UNSAID = ("json_file", "debug", "help")
"""Options that change nothing of what a page shows."""


def evaluate(
    context: typer.Context,
    overrides: Overrides = None,
    config: OptionalConfigFile = None,
    fused: Annotated[
        str | None,
        typer.Option(
            "--fused",
            "--weights",
            help="The model: name of packaged weights, run folder (path or URI), or `none`. "
            "Without this and --baseline: `small` and `small-no-spike`.",
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The model without spikes: the same choice.")
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(help="A further model in the same tables; may be given again."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="Dataset folder, for data.source; of several, each has a folder in OUT."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Folder of the report; without: the run's folder.")
    ] = None,
    report: Annotated[
        str | None, typer.Option(help="Markdown page (.md) of all datasets to write.")
    ] = None,
    sweep: Annotated[
        list[str] | None, typer.Option(help="Folder of a sweep whose trials the page shows too.")
    ] = None,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness", help="Disturb the spikes too, in many ways; not those of --beside."
        ),
    ] = False,
    disturb: Annotated[
        list[str] | None,
        typer.Option(help="The same, of the --source of this name alone; may be given again."),
    ] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Score models beside controls that need no training; write results.json and report.html."""
    with command(json_file, debug) as outcome:
        of_all = ["evaluation.robustness=true"] if robustness else []
        settings = load(config, [*(overrides or []), *of_all])
        from vrtspike.cli.model_choice import choose_models, datasets
        from vrtspike.report.methods import MAIN
        from vrtspike.storage.folder import Folder, local_path

        models = choose_models(fused, baseline, beside or ())
        data = disturbed(datasets(settings, source or ()), disturb or ())
        page = page_file(report, sweep)
        sweeps = [section_of_sweep(place) for place in sweep or ()]
        runs = [model for model in models if model.method == MAIN and model.is_run]
        own = Folder.at(settings.run.root).below(settings.run.name).where
        own = out or (fused if runs and fused else own)
        folder = resolve_path(local_path(own, "a report"), written=True)
        found: dict[str, Results] = {}
        for name, results in scored(data, models, folder):
            found[name] = results
            print_scores(results, name if len(data) > 1 else results.split)
        outcome.facts = facts_of(found)
        say(f"results: {short(folder if len(data) > 1 else folder / 'results.json')}")
        if page is not None:
            from vrtspike.report.markdown import write_page

            write_page(page, found, command=command_line(context), further=sweeps)
            outcome.facts["page"] = str(page)
            say(f"page: {short(page)}")


def disturbed(data: dict[str, Config], names: Sequence[str]) -> dict[str, Config]:
    """Return the configurations; those of some names disturb the spikes too."""
    from vrtspike.config.loader import change

    unknown = [name for name in names if name not in data]
    if unknown:
        raise ConfigError(
            "no dataset has this name",
            where="--disturb",
            got=unknown[0],
            expected=f"one of {', '.join(data)}",
        )
    return data | {name: change(data[name], {"evaluation.robustness": True}) for name in names}


def page_file(report: str | None, sweep: Sequence[str] | None) -> Path | None:
    """Return the page's file; refuse, before the work, one that cannot be written."""
    from vrtspike.storage.folder import check_target, local_path

    if report is None:
        if sweep:
            raise ConfigError(
                "a sweep is shown on a page, and there is none",
                where="--sweep",
                fix="give the page's file with --report",
            )
        return None
    page = resolve_path(local_path(report, "a page"), written=True)
    if page.suffix != ".md":
        raise ConfigError("the page is Markdown", where="--report", got=report, expected="a .md")
    check_target(page)
    return page


def section_of_sweep(place: str) -> str:
    """Return what a sweep found, as a section of the page."""
    from vrtspike.tuning.markdown import sweep_section
    from vrtspike.tuning.tables import JSON, read_results

    folder = resolve_place(place)
    facts = read_results(folder) if folder.size(JSON) is not None else {}
    if "trials" not in facts:
        raise ConfigError(
            f"there is no {JSON} of a sweep",
            where=folder,
            expected="the folder of `vrtspike tune`",
            fix="let the sweep finish, or correct the path",
        )
    return sweep_section(facts)


def scored(
    data: dict[str, Config], models: Sequence[ModelChoice], folder: Path
) -> Iterator[tuple[str, Results]]:
    """Score the models on each dataset; yield its results, with the hardest picture alone."""
    import torch

    from vrtspike.report.evaluation import check_evaluation, run_evaluation
    from vrtspike.report.picture_strip import hardest_panel
    from vrtspike.restoration.restorer import Restorer, fetched
    from vrtspike.runtime.progress import Progress

    with ExitStack() as stack:
        runs = {model.method: stack.enter_context(fetched(model.place)) for model in models}
        known_as = {model.method: model.known_as for model in models}
        several = len(data) > 1
        places = {name: folder / name if several else folder for name in data}
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        loaded = {method: Restorer.load(run, device) for method, run in runs.items()}
        for name, settings in data.items():  # all of them, before the first is scored
            check_evaluation(settings, loaded, places[name])
        for name, settings in data.items():
            with Progress(f"evaluate {name}" if several else "evaluate") as progress:
                results = run_evaluation(
                    settings,
                    loaded,
                    places[name],
                    runs=runs,
                    known_as=known_as,
                    device=device,
                    progress=progress.update,
                )
            panel = hardest_panel(results.panels)
            yield name, replace(results, panels=[] if panel is None else [panel])


def facts_of(found: dict[str, Results]) -> dict[str, Any]:
    """Return what --json holds: one dataset's results, or several by name."""
    each = {name: results.as_dict() for name, results in found.items()}
    return {"sources": each} if len(each) > 1 else dict(next(iter(each.values())))


def command_line(context: typer.Context) -> str:
    """Return the command as one would type it again."""
    options, arguments = [], []
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if parameter.name in UNSAID or not value:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        if parameter.param_type_name == "argument":
            arguments += [without_keys(str(one)) for one in values]
        else:
            name = parameter.opts[-1]
            words = [word for one in values for word in (name, without_keys(str(one)))]
            options += [name] if value is True else words
    return shlex.join(["vrtspike", "evaluate", *options, *arguments])


def without_keys(text: str) -> str:
    """Return an argument as it may be written down: of a URI without its keys."""
    from vrtspike.storage.folder import Folder

    name, equals, value = text.partition("=")
    if equals and "://" not in name:
        return f"{name}={Folder.at(value)}" if "://" in value else text
    return str(Folder.at(text)) if "://" in text else text


def print_scores(results: Results, title: str) -> None:
    from rich.table import Table

    from vrtspike.report.methods import method

    scores = {name: results.over_frames(name) for name in results.methods}
    table = Table(title)
    headings = ["PSNR (dB)", "SSIM"]
    headings += ["LPIPS"] if any(score.lpips is not None for score in scores.values()) else []
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, score in scores.items():
        numbers = [f"{score.psnr:.2f}", f"{score.ssim:.4f}"]
        numbers += [] if score.lpips is None else [f"{score.lpips:.4f}"]
        table.add_row(method(name).name, *numbers)
    print_tables(table)
