"""The `vrtspike` command: simulate, validate, preview, prepare, describe, train, evaluate, bench.

Every command takes `--json FILE` (a machine-readable result) and `--debug` (tracebacks), and, where
it has a configuration, `--config FILE` and overrides `a.b=c`. Exit status 0: done; 1: done with
findings, or failed; 2: refused (one line on standard error says what, where, got, expected, fix).
Heavy modules are imported inside the commands, so that `vrtspike --help` answers at once.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vrtspike import __version__
from vrtspike.cluster import connect, resolve_path, resolve_paths
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.outcome import Outcome, outcome_of_command

if TYPE_CHECKING:
    from rich.table import Table

    from vrtspike.settings import Config

app = typer.Typer(
    name="vrtspike",
    help="Deblur video with the help of a spike camera: simulate, train and evaluate on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

bench_app = typer.Typer(help="Measure this machine.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

BitOrder = Literal["little", "big"]
Choice = Literal["off", "on", "both"]
CHOICES = {"off": (False,), "on": (True,), "both": (False, True)}
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="Configuration (YAML).")]
OptionalConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration (YAML).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings that replace the file's, such as train.steps=100."),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result here as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Tell the version.")] = False,
) -> None:
    if version:
        _say(f"vrtspike {__version__}")
        raise typer.Exit


def _command(json_file: Path | None, debug: bool) -> AbstractContextManager[Outcome]:
    """Return the context of a command's body: it says errors and sets the exit status."""
    return outcome_of_command(json_file, debug=debug, say_error=_say_error)


def _say(text: str = "") -> None:
    print(text, flush=True)


def _say_error(text: str) -> None:
    print(f"vrtspike: {text}", file=sys.stderr, flush=True)


def _load(config: Path | None, overrides: list[str] | None) -> Config:
    from vrtspike.config import load_config

    return resolve_paths(load_config(config, overrides or ()))


@app.command()
def simulate(
    overrides: Overrides = None,
    config: OptionalConfigFile = None,
    video: Annotated[
        Path | None, typer.Option(help="Sharp video, or folder of frames; without: scenes.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Dataset folder to write; without: data.source.")
    ] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Make spikes, blurred and sharp frames from a video or from rendered scenes."""
    with _command(json_file, debug) as outcome:
        settings = _load(config, overrides)
        folder = settings.data.source if out is None else resolve_path(out, written=True)
        if video is None and settings.scenes is None:
            raise ConfigError(
                "nothing to simulate from",
                fix="give --video FILE, or a --config that has a `scenes:` section",
            )
        if video is not None and out is None:
            raise ConfigError("no folder for the simulated dataset", fix="give --out DIR")
        from vrtspike.progress import Progress
        from vrtspike.simulate.video import iter_frames

        # What does not decode costs no start of Ray.
        if video is not None and next(iter_frames(video), None) is None:
            raise DataFormatError("the video holds no frame", where=video)
        with connect(), Progress("simulate") as progress:
            from vrtspike.simulate.distributed import simulate_scenes, simulate_video

            if video is not None:
                simulate_video(
                    resolve_path(video),
                    folder,
                    settings.camera,
                    progress.update,
                    settings=settings.video,
                )
            else:
                assert settings.scenes is not None
                simulate_scenes(settings.scenes, settings.camera, folder, progress.update)
        outcome.facts = {"dataset": str(folder)}
        _say(f"dataset: {_short(folder)}")


@app.command()
def validate(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Check a dataset folder before it costs training time; findings give exit status 1."""
    with _command(json_file, debug) as outcome:
        from vrtspike.data.dataset import open_dataset
        from vrtspike.data.validate import validate as find_problems
        from vrtspike.progress import Progress

        open_dataset(dataset)
        with Progress("validate") as progress:
            findings = find_problems(dataset, progress.update)
        outcome.facts = {"dataset": str(dataset), "findings": [vars(f) for f in findings]}
        outcome.status = 1 if findings else 0
        for finding in findings:
            _say(f"{finding.kind}: {finding.message} [{finding.where}]")
        _say(f"{dataset}: {len(findings)} findings" if findings else f"{dataset}: nothing found")


@app.command()
def preview(
    file: Annotated[Path, typer.Argument(help="Spike stream (.dat), one bit a pixel.")],
    height: Annotated[int, typer.Option(help="Rows of the spike grid.")],
    width: Annotated[int, typer.Option(help="Columns of the spike grid.")],
    out: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("preview"),
    threshold: Annotated[float, typer.Option(help="Scales spikes to brightness.")] = 2.0,
    center: Annotated[int | None, typer.Option(help="Step to look at; the middle.")] = None,
    window: Annotated[int, typer.Option(help="Steps that are averaged.")] = 32,
    bins: Annotated[int, typer.Option(help="Voxel bins of the window.")] = 8,
    bit_order: Annotated[BitOrder, typer.Option(help="Order of the pixels in a byte.")] = "little",
    flip: Annotated[bool, typer.Option(help="Rows are stored bottom-up.")] = True,
    pad_to_byte: Annotated[bool, typer.Option(help="Each step ends on a byte.")] = False,
    frame: Annotated[
        Path | None, typer.Option(help="Sharp frame of the same instant, to compare with.")
    ] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Look at a spike file: scaled average (TFP) and interval (TFI) images, bits, voxel bins."""
    with _command(json_file, debug) as outcome:
        from vrtspike.data.dat import SpikeStream
        from vrtspike.viz.spikes import compare, preview, write_preview

        stream = SpikeStream.open(
            file,
            height=height,
            width=width,
            bit_order=bit_order,
            flip=flip,
            threshold=threshold,
            pad_to_byte=pad_to_byte,
        )
        pictures = preview(stream, center=center, window=window, bins=bins)
        outcome.facts = {"steps": len(stream), "height": height, "width": width}
        if frame is not None:
            outcome.facts["psnr"] = compare(pictures, frame)
        files = write_preview(pictures, out)
        outcome.facts["files"] = [str(path) for path in files]
        _say(f"{file}: {len(stream)} steps of {height}x{width}")
        for name, psnr in outcome.facts.get("psnr", {}).items():
            _say(f"{name} against {frame}: {psnr:.2f} dB")
        _say("wrote " + " ".join(str(path) for path in files))


@app.command()
def prepare(
    config: ConfigFile,
    overrides: Overrides = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Shard a dataset for training (Ray Data); continues where it was stopped."""
    with _command(json_file, debug) as outcome:
        settings = _load(config, overrides)
        data = settings.data
        _check_dataset(settings)
        from vrtspike.progress import Progress

        with connect(), Progress("prepare") as progress:
            from vrtspike.data.prepare import prepare_data

            manifest = prepare_data(data, progress.update)
        samples = {name: len(split.samples) for name, split in manifest.splits.items()}
        refused = [refusal.model_dump() for refusal in manifest.refused]
        outcome.facts = {"shards": str(data.shards), "samples": samples, "refused": refused}
        counts = ", ".join(f"{count} samples of {name}" for name, count in samples.items())
        _say(f"shards: {_short(data.shards)}: {counts}")


@app.command()
def describe(
    config: ConfigFile,
    overrides: Overrides = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Tell what a configuration costs: parameters, operations, shapes, memory of a step."""
    with _command(json_file, debug) as outcome:
        settings = _load(config, overrides)
        from vrtspike.bench.describe import describe
        from vrtspike.bench.tables import memory_table, parts_table

        found = describe(settings)
        outcome.facts = found.as_dict()
        _say(f"a worker's batch: {found.clip} (b x t x h x w), {found.precision}")
        _print_tables(parts_table(found), memory_table(found))
        _say(f"counted on {found.device}" + (f": {found.note}" if found.note else ""))


@bench_app.command("model")
def bench_model(
    config: ConfigFile,
    overrides: Overrides = None,
    size: Annotated[
        list[str] | None, typer.Option(help="Frames x height x width; may be repeated.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Clips at once.")] = 1,
    precision: Annotated[
        Literal["float32", "bfloat16", "both"], typer.Option(help="Arithmetic.")
    ] = "float32",
    checkpoint: Annotated[
        Literal["configured", "off", "on", "both"],
        typer.Option(help="Recompute attention and MLPs in the backward pass."),
    ] = "configured",
    compiled: Annotated[
        Choice, typer.Option("--compile", help="Run torch.compile on each block.")
    ] = "off",
    device: Annotated[
        Literal["cpu", "cuda"] | None, typer.Option(help="Without: cuda where there is one.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads on a CPU.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed passes of each case.")] = 3,
    naive: Annotated[bool, typer.Option(help="Compare the fast paths with plain code.")] = True,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Time restoring and training, fused and baseline in turns; tell their greatest memory."""
    with _command(json_file, debug) as outcome:
        settings = _load(config, overrides).model
        from vrtspike.bench.model import Plan, find_machine, parse_size, run_plan
        from vrtspike.bench.tables import comparisons_table, results_table
        from vrtspike.progress import Progress

        plan = Plan(
            clips=tuple(parse_size(text, batch) for text in size or ["6x64x64"]),
            precisions=("float32", "bfloat16") if precision == "both" else (precision,),
            checkpoints=(None,) if checkpoint == "configured" else CHOICES[checkpoint],
            compiles=CHOICES[compiled],
            repeats=repeats,
            naive=naive,
        )
        machine = find_machine(device, threads)
        with Progress("bench model") as progress:
            found = run_plan(settings, plan, machine, progress.update)
        outcome.facts = found.as_dict()
        _say(str(machine))
        _print_tables(results_table(found.results))
        if found.comparisons:
            _print_tables(comparisons_table(found.comparisons))


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Train on Ray; the same as `python ray_jobs/train.py`. A run of the same name continues."""
    with _command(json_file, debug) as outcome:
        settings = _load(config, overrides)
        if not (settings.data.shards / "manifest.json").is_file() and settings.scenes is None:
            _check_dataset(settings)
        from vrtspike.training.preflight import check_before_ray
        from vrtspike.training.trainer import run_training

        check_before_ray(settings)
        with connect():
            run = run_training(settings)
        outcome.facts = {"run": str(run)}
        _say(f"run: {_short(run)}")


@app.command()
def evaluate(
    config: ConfigFile,
    overrides: Overrides = None,
    fused: Annotated[Path | None, typer.Option(help="Run folder of the model.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Run folder of the model without spikes.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; without: the run's folder.")
    ] = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Score models beside controls that need no training; write results.json and report.html."""
    with _command(json_file, debug) as outcome:
        settings = _load(config, overrides)
        if out is None:
            out = fused or settings.run.root / settings.run.name
        folder = resolve_path(out, written=True)
        from vrtspike.progress import Progress
        from vrtspike.viz.evaluation import run_evaluation

        named = {"baseline": baseline, "fused": fused}
        runs = {name: resolve_path(run) for name, run in named.items() if run is not None}
        with Progress("evaluate") as progress:
            results = run_evaluation(settings, runs, folder, progress=progress.update)
        outcome.facts = results.as_dict()
        _say(f"results: {_short(folder / 'results.json')}")


@app.command()
def demo(
    overrides: Overrides = None,
    config: ConfigFile = Path("configs/demo.yaml"),
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Run the main job from nothing to a report: simulate, prepare, train twice, evaluate."""
    with _command(json_file, debug) as outcome:
        from vrtspike.config import load_config
        from vrtspike.demo import plan, read_table, run_demo
        from vrtspike.progress import clock_text

        settings = load_config(config, overrides or ())
        phases = plan(config, settings, overrides or ())
        status, seconds = run_demo(phases, _say)
        outcome.status, outcome.facts = status, {"seconds": seconds}
        if not status:
            out = settings.run.root / settings.run.name
            rows = read_table(out / "results.json", settings.evaluation.split)
            outcome.facts["report"] = str(out / "report.html")
            _print_table(rows)
            _say(f"all of it took {clock_text(sum(seconds.values()))}")
            _say(f"report: {out / 'report.html'}")


def _check_dataset(settings: Config) -> None:
    """Refuse a dataset that is not there or lacks a split, before Ray is started."""
    from vrtspike.data.dataset import open_dataset

    dataset = open_dataset(settings.data.source)
    for split in (settings.data.train_split, settings.data.val_split):
        dataset.sequences(split)


def _print_table(rows: list[tuple[str, float, float]]) -> None:
    from rich.table import Table

    table = Table("held-out scenes", title=None)
    for heading in ("PSNR (dB)", "SSIM"):
        table.add_column(heading, justify="right")
    for title, psnr, ssim in rows:
        table.add_row(title, f"{psnr:.2f}", f"{ssim:.4f}")
    _print_tables(table)


def _print_tables(*tables: Table) -> None:
    from rich.console import Console

    # What is piped or logged must not be folded to the width of a terminal that is not there.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    for table in tables:
        console.print(table)


def _short(path: Path) -> Path:
    """Write a path below the current folder relative to it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def main() -> None:
    """Run the command."""
    app()
