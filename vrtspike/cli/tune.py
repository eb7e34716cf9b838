"""`vrtspike tune`: run a sweep over settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vrtspike.cli.console import (
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
from vrtspike.runtime.ray_session import connect


def tune(
    config: ConfigFile,
    overrides: Overrides = None,
    base: Annotated[
        Path | None, typer.Option(help="Configuration to use instead of the file's own `base`.")
    ] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Sweep over settings on Ray.

    Compares the best trials with the model without spikes. A stopped sweep continues.
    """
    with command(json_file, debug) as outcome:
        settings = load(config, overrides, base)
        check_data_is_there(settings)
        from vrtspike.training.preflight import check_before_ray
        from vrtspike.tuning.checks import check_space

        check_space(settings)
        check_before_ray(settings)
        from vrtspike.tuning.sweep import run_sweep
        from vrtspike.tuning.tables import read_results, trial_table, verdict

        with connect(dashboard=True):
            folder, summary = run_sweep(settings)
        print_trials(*trial_table(summary))
        for problem in summary.problems:
            say(f"note: {problem}")
        say(verdict(summary))
        say(f"report: {short(folder.where)}/report.html")
        outcome.status = 1 if summary.problems else 0
        outcome.facts = {"sweep": str(folder), **read_results(folder)}


def print_trials(headings: list[str], rows: list[list[str]]) -> None:
    """Print the table of trials."""
    from rich.table import Table

    table = Table(*headings)
    for row in rows:
        table.add_row(*row)
    print_tables(table)
