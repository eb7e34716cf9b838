"""Commands on runs: train, evaluate, demo."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vrtspike.cluster import connect, resolve_path, resolve_place
from vrtspike.commands.console import (
    ConfigFile,
    Debug,
    JsonFile,
    Overrides,
    check_data_is_there,
    command,
    load,
    print_tables,
    say,
    short,
)
from vrtspike.errors import ConfigError

if TYPE_CHECKING:
    from vrtspike.inference.results import Results


def train(
    config: ConfigFile,
    overrides: Overrides = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Train on Ray; the same as `python ray_jobs/train.py`. A run of the same name continues."""
    with command(json_file, debug) as outcome:
        settings = load(config, overrides)
        if settings.sweep is not None:
            raise ConfigError(
                "this configuration is a sweep",
                where=config,
                fix="run it with `vrtspike tune`, or train one without `sweep:`",
            )
        check_data_is_there(settings)
        from vrtspike.training.preflight import check_before_ray

        check_before_ray(settings)
        from vrtspike.training.trainer import run_training

        with connect():
            run = run_training(settings)
        outcome.facts = {"run": str(run)}
        say(f"run: {short(run.where)}")


def tune(
    config: ConfigFile,
    overrides: Overrides = None,
    base: Annotated[
        Path | None, typer.Option(help="Configuration that trials start from, for the file's own.")
    ] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Sweep over settings beside the model without spikes; the same command finishes a sweep."""
    with command(json_file, debug) as outcome:
        settings = load(config, overrides, base)
        check_data_is_there(settings)
        from vrtspike.training.preflight import check_before_ray
        from vrtspike.tuning.checks import check_space

        check_space(settings)
        check_before_ray(settings)
        from vrtspike.tuning.tables import read_results, summary_headings, summary_rows, verdict
        from vrtspike.tuning.tuner import run_sweep

        with connect(dashboard=True):
            folder, summary = run_sweep(settings)
        print_trials(summary_headings(summary), summary_rows(summary))
        for problem in summary.problems:
            say(f"note: {problem}")
        say(verdict(summary))
        say(f"report: {short(folder.where)}/report.html")
        outcome.status = 1 if summary.problems else 0
        outcome.facts = {"sweep": str(folder), **read_results(folder)}


def evaluate(
    config: ConfigFile,
    overrides: Overrides = None,
    fused: Annotated[str | None, typer.Option(help="Run folder of the model: path or URI.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Run folder of the model without spikes: path or URI.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Folder of the report; without: the run's folder.")
    ] = None,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Disturb the spikes too, in many ways.")
    ] = False,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Score models beside controls that need no training; write results.json and report.html."""
    with command(json_file, debug) as outcome:
        disturbed = ["evaluation.robustness=true"] if robustness else []
        settings = load(config, [*(overrides or []), *disturbed])
        from vrtspike.inference.run_folder import fetched
        from vrtspike.progress import Progress
        from vrtspike.storage import Folder, local_path
        from vrtspike.viz.evaluation import run_evaluation

        own = out or fused or Folder.at(settings.run.root).below(settings.run.name).where
        folder = resolve_path(local_path(own, "a report"), written=True)
        named = {"baseline": baseline, "fused": fused}
        with ExitStack() as stack, Progress("evaluate") as progress:
            runs = {
                name: stack.enter_context(fetched(resolve_place(run)))
                for name, run in named.items()
                if run is not None
            }
            results = run_evaluation(settings, runs, folder, progress=progress.update)
        outcome.facts = results.as_dict()
        print_scores(results)
        say(f"results: {short(folder / 'results.json')}")


def demo(
    overrides: Overrides = None,
    config: ConfigFile = Path("configs/demo.yaml"),
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Run the main job from nothing to a report: simulate, prepare, train twice, evaluate."""
    with command(json_file, debug) as outcome:
        from vrtspike.config import load_config
        from vrtspike.demo import plan, run_demo
        from vrtspike.progress import clock_text
        from vrtspike.storage import local_path

        settings = load_config(config, overrides or ())
        phases = plan(config, settings, overrides or ())
        status, seconds = run_demo(phases, say)
        outcome.status, outcome.facts = status, {"seconds": seconds}
        if not status:
            out = local_path(settings.run.root, "a demo") / settings.run.name
            outcome.facts["report"] = str(out / "report.html")
            say(f"all of it took {clock_text(sum(seconds.values()))}")
            say(f"report: {out / 'report.html'}")


def print_trials(headings: list[str], rows: list[list[str]]) -> None:
    from rich.table import Table

    table = Table(*headings)
    for row in rows:
        table.add_row(*row)
    print_tables(table)


def print_scores(results: Results) -> None:
    from rich.table import Table

    from vrtspike.viz.methods import method

    scores = {name: results.over_frames(name) for name in results.methods}
    table = Table(results.split)
    headings = ["PSNR (dB)", "SSIM"]
    headings += ["LPIPS"] if any(score.lpips is not None for score in scores.values()) else []
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, score in scores.items():
        numbers = [f"{score.psnr:.2f}", f"{score.ssim:.4f}"]
        numbers += [] if score.lpips is None else [f"{score.lpips:.4f}"]
        table.add_row(method(name).name, *numbers)
    print_tables(table)
