"""Shared parts of all commands: common options, output, and error handling.

Every command has `--json FILE` (a machine-readable result) and `--debug` (tracebacks). Commands
with a configuration also have `--config FILE` and overrides `a.b=c`. All output but the progress
line is printed here.
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
        "--config", "-c", help="Configuration: a YAML file, or the name of a shipped one (demo)."
    ),
]
OptionalConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file (YAML).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings that override the file, such as train.steps=100."),
]
LayoutOption = Annotated[LayoutName, typer.Option(help="Layout of the dataset folder.")]
JsonFile = Annotated[
    str | None, typer.Option("--json", help="Write the result to this file as JSON.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")]


def command(json_file: str | None, debug: bool) -> AbstractContextManager[Outcome]:
    """Return the context for the body of a command: it prints errors and sets the exit status."""
    return outcome_of_command(json_file, debug=debug, say_error=say_error)


def say(text: str = "") -> None:
    """Print lines; control characters are escaped."""
    print("\n".join(map(visible, text.split("\n"))), flush=True)


def say_error(text: str) -> None:
    """Print one line on standard error; control characters are escaped."""
    print(f"vrtspike: {visible(text)}", file=sys.stderr, flush=True)


def load(config: Path | None, overrides: list[str] | None, base: Path | None = None) -> Config:
    """Read a configuration file and apply overrides; relative paths become absolute.

    `base` replaces the file's own `base`.
    """
    from vrtspike.config.loader import load_config
    from vrtspike.runtime.ray_session import resolve_paths

    return resolve_paths(load_config(config, overrides or (), base=base))


def check_dataset(settings: Config) -> Dataset:
    """Open the dataset, before Ray starts; raise an error if it or one of its splits is missing."""
    from vrtspike.datasets.index import open_dataset

    dataset = open_dataset(settings.data.source, settings.data.layout)
    for split in (settings.data.train_split, settings.data.val_split):
        dataset.sequences(split)
    return dataset


def check_data_is_there(settings: Config) -> None:
    """Check, before Ray starts, that training data exist or can be rendered; otherwise raise an
    error."""
    from vrtspike.samples.shards import MANIFEST
    from vrtspike.storage.folder import Folder

    if settings.train.task == "flow":
        return
    prepared = Folder.at(settings.data.shards).size(MANIFEST) is not None
    if not prepared and settings.rendered is None:
        check_dataset(settings)


def print_tables(*tables: Table) -> None:
    from rich.console import Console

    # Piped or logged output must not be wrapped to rich's default width of 80 columns.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    for table in tables:
        console.print(table)


def short(path: Path | str) -> Path | str:
    """Return a path relative to the current folder, if it is inside, or a URI without keys."""
    if isinstance(path, str):
        from vrtspike.storage.folder import Folder

        folder = Folder.at(path)
        if folder.remote:
            return str(folder)
        path = folder.path
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def range_of(option: str, text: str) -> tuple[int, int]:
    """Parse a half-open range such as `400:416`; raise ConfigError if `text` is none."""
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise ConfigError("not a range", where=option, got=text, expected="such as 400:416")
    return int(first), int(last)
