"""`vrtspike validate`: check a dataset folder."""

from __future__ import annotations

from typing import Annotated

import typer

from vrtspike.cli.console import Debug, JsonFile, LayoutOption, command, say


def validate(
    dataset: Annotated[str, typer.Argument(help="Dataset folder (path or URI).")],
    layout: LayoutOption = "vrtspike",
    html: Annotated[
        str | None, typer.Option(help="Write a page with thumbnails to this file.")
    ] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Check a dataset folder before training. Exit status 1 if there are findings."""
    with command(json_file, debug) as outcome:
        from vrtspike.datasets.index import open_dataset
        from vrtspike.datasets.validate import check_dataset as find_problems
        from vrtspike.report.validation import write_validation_report
        from vrtspike.runtime.progress import Progress
        from vrtspike.storage.folder import check_target, local_path

        page = local_path(html, "a page") if html else None
        if page is not None:
            check_target(page)
        opened = open_dataset(dataset, layout)
        with Progress("validate") as progress:
            report = find_problems(opened, progress.update)
        name, count = str(opened.folder), len(report.findings)
        outcome.facts = {"dataset": name, "layout": layout, **report.facts()}
        outcome.status = 1 if count else 0
        for finding in report.findings:
            say(f"{finding.kind}: {finding.message} [{finding.where}]")
        say(f"{name}: {count} findings" if count else f"{name}: nothing found")
        if page is not None:
            write_validation_report(page, opened, report)
