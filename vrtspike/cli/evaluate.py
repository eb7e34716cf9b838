"""The command that scores models: results and a report of each dataset."""

from __future__ import annotations

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
from vrtspike.runtime.ray_session import resolve_path

if TYPE_CHECKING:
    from vrtspike.cli.model_choice import ModelChoice
    from vrtspike.config.config import Config
    from vrtspike.evaluation.results import Results


def evaluate(
    overrides: Overrides = None,
    config: OptionalConfigFile = None,
    fused: Annotated[
        str | None,
        typer.Option(
            "--fused",
            "--weights",
            help="The model: name of packaged weights, run folder (path or URI), or `none`. "
            "Default, without --baseline: `small` beside `small-no-spike`.",
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
        str | None, typer.Option(help="Folder of the report; default: the run's folder.")
    ] = None,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness", help="Disturb the spikes too, in many ways; not those of --beside."
        ),
    ] = False,
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
        data = datasets(settings, source or ())
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


def scored(
    data: dict[str, Config], models: Sequence[ModelChoice], folder: Path
) -> Iterator[tuple[str, Results]]:
    """Score the models on each dataset; yield its results without pictures."""
    import torch

    from vrtspike.report.evaluation import check_evaluation, run_evaluation
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
            yield name, replace(results, panels=[])


def facts_of(found: dict[str, Results]) -> dict[str, Any]:
    """Return what --json holds: one dataset's results, or several by name."""
    each = {name: results.as_dict() for name, results in found.items()}
    return {"sources": each} if len(each) > 1 else dict(next(iter(each.values())))


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
