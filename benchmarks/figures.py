"""What all benchmarks share: the time that a function takes, and tables of figures.

A table is a list of rows, `{"column": value, ...}`; `show` prints tables, and writes the same rows
as JSON, `{"machine": ..., "<table>": [...]}`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vrtspike.bench.model import find_machine

Row = Mapping[str, Any]


def cpu_seconds(work: Callable[[], object], *, at_least_s: float = 0.5) -> float:
    """Return the median CPU seconds of a call on one thread; other processes do not show in it."""
    from torch.utils.benchmark import Timer  # looks for a CUDA compiler, and says so

    timer = Timer("work()", globals={"work": work}, timer=time.process_time, num_threads=1)
    return float(timer.blocked_autorange(min_run_time=at_least_s).median)


def show(tables: Mapping[str, Sequence[Row]], json_file: Path | None) -> None:
    """Print tables, and write them to a file where one is given."""
    machine = str(find_machine(None, None))
    console = Console(width=160)
    console.print(machine)
    for title, rows in tables.items():
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*(_text(value) for value in row.values()))
        console.print(title, table, sep="\n")
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": machine, **tables}, indent=2) + "\n")


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
