"""The `vrtspike` command.

Exit status 0: done; 1: done with findings, or failed unexpectedly; 2: an error that the user can
fix (one line on standard error says what, where, got, expected, fix).
"""

from __future__ import annotations

import contextlib
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from vrtspike import __version__
from vrtspike.cli.bench import bench_model
from vrtspike.cli.checkpoints import checkpoints
from vrtspike.cli.console import say
from vrtspike.cli.convert import convert
from vrtspike.cli.demo import demo
from vrtspike.cli.describe import describe
from vrtspike.cli.evaluate import evaluate
from vrtspike.cli.export import export
from vrtspike.cli.prepare import prepare
from vrtspike.cli.preview import preview
from vrtspike.cli.restore import restore
from vrtspike.cli.simulate import simulate
from vrtspike.cli.train import train
from vrtspike.cli.tune import tune
from vrtspike.cli.validate import validate

app = typer.Typer(
    name="vrtspike",
    help="Deblur video with the help of a spike camera: simulate, train and evaluate on Ray.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # importing rich would take a third of the time of `vrtspike --help`
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    simulate,
    validate,
    preview,
    convert,
    prepare,
    describe,
    train,
    tune,
    evaluate,
    restore,
    checkpoints,
    export,
    demo,
):
    app.command()(command)

bench = typer.Typer(help="Benchmark this machine.", no_args_is_help=True)
bench.command("model")(bench_model)
app.add_typer(bench, name="bench")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        say(version_line())
        raise typer.Exit


def version_line() -> str:
    """Return the versions of vrtspike, with its commit in a checkout, and of torch and Ray."""
    checkout = Path(__file__).resolve().parents[2]
    git = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"]
    commit = ""
    if (checkout / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            described = subprocess.run(git, capture_output=True, text=True, check=True, timeout=10)
            commit = f" (commit {described.stdout.strip()})"
    libraries = [f"{name} {metadata.version(name)}" for name in ("torch", "ray")]
    return f"vrtspike {__version__}{commit}, {', '.join(libraries)}"


def main() -> None:
    """Run the command line."""
    app()
