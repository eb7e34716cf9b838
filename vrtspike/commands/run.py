"""Commands on runs: train, tune, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vrtspike.cluster import connect
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


def demo(
    overrides: Overrides = None,
    config: ConfigFile = Path("configs/demo.yaml"),
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Run the main job from nothing to a report: simulate, restore with packaged weights, prepare,
    train twice, evaluate."""
    with command(json_file, debug) as outcome:
        from vrtspike.config import load_config
        from vrtspike.demo import demo_folder, plan, run_demo, starting_line
        from vrtspike.progress import clock_text

        settings = load_config(config, overrides or ())
        phases = plan(config, settings, overrides or ())
        say(starting_line(settings))
        status, seconds = run_demo(phases, say)
        outcome.status, outcome.facts = status, {"seconds": seconds}
        if not status:
            out = demo_folder(settings)
            outcome.facts["report"] = str(out / "report.html")
            say(f"all of it took {clock_text(sum(seconds.values()))}")
            say(f"report: {out / 'report.html'}")


def print_trials(headings: list[str], rows: list[list[str]]) -> None:
    from rich.table import Table

    table = Table(*headings)
    for row in rows:
        table.add_row(*row)
    print_tables(table)
