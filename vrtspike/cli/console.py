"""What all commands share: options, output, and how a command's body is run.

Every command takes `--json FILE` (a machine-readable result) and `--debug` (tracebacks), and, where
it has a configuration, `--config FILE` and overrides `a.b=c`. Nothing else in the package prints.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vrtspike.cli.exit_status import Outcome, outcome_of_command
from vrtspike.config.choices import LayoutName
from vrtspike.errors import ConfigError, visible

if TYPE_CHECKING:
    from rich.table import Table

    from vrtspike.config.config import Config
    from vrtspike.datasets.index import Dataset

ConfigFile = Annotated[
    Path,
    typer.Option(
        "--config", "-c", help="Configuration: a YAML file, or a shipped one by name (demo)."
    ),
]
OptionalConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration (YAML).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings that replace the file's, such as train.steps=100."),
]
LayoutOption = Annotated[LayoutName, typer.Option(help="How the dataset folder is laid out.")]
JsonFile = Annotated[str | None, typer.Option("--json", help="Write the result here as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")]


def command(json_file: str | None, debug: bool) -> AbstractContextManager[Outcome]:
    """Return the context of a command's body: it says errors and sets the exit status."""
    return outcome_of_command(json_file, debug=debug, say_error=say_error)


def say(text: str = "") -> None:
    """Print a line."""
    print("\n".join(map(visible, text.split("\n"))), flush=True)


def say_error(text: str) -> None:
    """Print a line on standard error."""
    print(f"vrtspike: {visible(text)}", file=sys.stderr, flush=True)


def load(config: Path | None, overrides: list[str] | None, base: Path | None = None) -> Config:
    """Read a configuration, over another base if one is given, and its overrides; paths become
    absolute."""
    from vrtspike.config.loader import load_config
    from vrtspike.runtime.ray_session import resolve_paths

    return resolve_paths(load_config(config, overrides or (), base=base))


def check_dataset(settings: Config) -> Dataset:
    """Open the dataset; refuse one that is not there or lacks a split before Ray is started."""
    from vrtspike.datasets.index import open_dataset

    dataset = open_dataset(settings.data.source, settings.data.layout)
    for split in (settings.data.train_split, settings.data.val_split):
        dataset.sequences(split)
    return dataset


def check_data_is_there(settings: Config) -> None:
    """Refuse, before Ray is started, a dataset that is neither prepared nor there nor rendered."""
    from vrtspike.samples.shards import MANIFEST
    from vrtspike.storage.folder import Folder

    if settings.train.task == "flow":
        return
    prepared = Folder.at(settings.data.shards).size(MANIFEST) is not None
    if not prepared and settings.rendered is None:
        check_dataset(settings)


def print_tables(*tables: Table) -> None:
    """Print tables."""
    from rich.console import Console

    # What is piped or logged must not be folded to the width of a terminal that is not there.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    for table in tables:
        console.print(table)


def short(path: Path | str) -> Path | str:
    """Write a path below the current folder relative to it, and a URI without its keys."""
    if isinstance(path, str):
        from vrtspike.storage.folder import Folder

        folder = Folder.at(path)
        if folder.remote:
            return str(folder)
        path = folder.path
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def range_of(option: str, text: str) -> tuple[int, int]:
    """Read `400:416` as a half-open range."""
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise ConfigError("not a range", where=option, got=text, expected="such as 400:416")
    return int(first), int(last)
