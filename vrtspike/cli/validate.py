"""`vrtspike validate`: check a dataset folder."""

from __future__ import annotations

from typing import Annotated

import typer

from vrtspike.cli.console import Debug, JsonFile, LayoutOption, command, say


def validate(
    dataset: Annotated[str, typer.Argument(help="Dataset folder, or its URI.")],
    layout: LayoutOption = "vrtspike",
    html: Annotated[str | None, typer.Option(help="Write a page with thumbnails here.")] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Check a dataset folder before it costs training time; findings give exit status 1."""
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
            found = find_problems(opened, progress.update)
        name, count = str(opened.folder), len(found.findings)
        outcome.facts = {"dataset": name, "layout": layout, **found.facts()}
        outcome.status = 1 if count else 0
        for finding in found.findings:
            say(f"{finding.kind}: {finding.message} [{finding.where}]")
        say(f"{name}: {count} findings" if count else f"{name}: nothing found")
        if page is not None:
            write_validation_report(page, opened, found)
