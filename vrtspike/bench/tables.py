"""The tables that `vrtspike describe` and `vrtspike bench` show on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.table import Table

from vrtspike.bench.data import DataReport
from vrtspike.bench.data_stages import Stages
from vrtspike.bench.describe import Description
from vrtspike.bench.efficiency import Scaled
from vrtspike.bench.fast_paths import Comparison
from vrtspike.bench.flow import FlowReport
from vrtspike.bench.model import Result
from vrtspike.bench.restoring import Restored, RestoreReport
from vrtspike.bench.save_cost import SAVE_EVERY, Saving
from vrtspike.bench.step_model import Prediction
from vrtspike.bench.voxelization import Way

GIB = 2**30


def parts_table(description: Description) -> Table:
    """Return a row for each part of the model, and the sums."""
    costs = description.costs
    table = _table("part", "shape", "parameters", "GFLOP", "GiB kept")
    for part in costs.parts:
        name = f"{part.name} (spikes)" if part.spike else part.name
        shape = "x".join(str(size) for size in part.shape)
        numbers = (f"{part.parameters:,}", f"{part.flops / 1e9:.1f}", _gib(part.kept))
        table.add_row(name, shape, *numbers)
    table.add_section()
    kept = sum(part.kept for part in costs.parts)
    table.add_row("all", "", f"{costs.parameters:,}", f"{costs.flops / 1e9:.1f}", _gib(kept))
    shares = (costs.spike_share(of) for of in ("parameters", "flops", "kept"))
    table.add_row("spike branch", "", *(f"{100 * share:.1f} %" for share in shares))
    return table


def memory_table(description: Description) -> Table:
    """Return what a worker holds at most in a training step."""
    state = description.state
    rows = {
        "weights": state.weights,
        "gradients": state.gradients,
        "optimiser's moments": state.moments,
        "averaged weights": state.average,
        "gathered weights": state.gathered,
        "activations, as configured": description.costs.activations,
    }
    table = _table("memory of a worker", "GiB")
    for name, size in rows.items():
        table.add_row(name, _gib(size))
    table.add_section()
    table.add_row("peak", _gib(description.peak))
    table.add_section()
    table.add_row("activations without checkpointing", _gib(description.activations_kept))
    table.add_row("activations with checkpointing", _gib(description.activations_recomputed))
    return table


def results_table(results: Iterable[Result]) -> Table:
    """Return a row for each case; the fused model's with its ratios to the baseline's."""
    columns = ("precision", "forward s", "step s", "forward GiB", "step GiB", "TFLOP/s", "MFU")
    table = _table("model", "b x t x h x w", *columns)
    for result in results:
        case, measured = result.case, result.measured
        options = {
            "checkpoint": case.checkpoint is True,
            "no checkpoint": case.checkpoint is False,
            "compile": case.compile,
        }
        name = " ".join([case.model, *(option for option, on in options.items() if on)])
        cells = [name, str(case.clip), case.precision]
        if measured is None:
            table.add_row(*cells, result.failure)
            continue
        values = {
            "forward_s": f"{measured.forward_s:.3g}",
            "step_s": f"{measured.step_s:.3g}",
            "forward_bytes": _gib(measured.forward_bytes),
            "step_bytes": _gib(measured.step_bytes),
        }
        for key, text in values.items():
            ratio = (result.over_baseline or {}).get(key)
            cells.append(text if ratio is None else f"{text} ({ratio:.2f}x)")
        rate = measured.step_flops / measured.step_s / 1e12
        mfu = "" if measured.mfu is None else f"{100 * measured.mfu:.1f} %"
        table.add_row(*cells, f"{rate:.3g}", mfu)
    return table


def comparisons_table(comparisons: Iterable[Comparison]) -> Table:
    """Return a row for each fast path."""
    table = _table(
        "part, forward and backward", "b x t x h x w", "fast s", "naive s", "speedup", "difference"
    )
    table.add_column("of gradients, relative", justify="right")
    for part in comparisons:
        seconds = (f"{part.fast_s:.3g}", f"{part.naive_s:.3g}", f"{part.speedup:.1f}x")
        differences = (f"{part.difference:.1e}", f"{part.gradient_difference:.1e}")
        table.add_row(part.part, str(part.clip), *seconds, *differences)
    return table


def voxelization_table(ways: Iterable[Way]) -> Table:
    """Return a row for each way through a stream of spikes."""
    table = _table("a whole stream of packed spikes", "ms", "Gbit/s", "over voxelize_stream")
    for way in ways:
        table.add_row(
            way.name,
            f"{1e3 * way.seconds:.3g}",
            f"{way.bits_s / 1e9:.3g}",
            f"{way.over_voxelize:.3g}x",
        )
    return table


def stages_table(stages: Iterable[Stages]) -> Table:
    """Return a column for each source, in CPU milliseconds and shares."""
    sources = list(stages)
    table = _table("CPU ms of a sample", *(source.source for source in sources))
    for stage in ("read", "decode", "voxelize", "augment", "transfer"):
        cells = []
        for source in sources:
            seconds = source.seconds.get(stage)
            share = f"{100 * source.shares.get(stage, 0):.0f} %"
            cells.append("" if seconds is None else f"{1e3 * seconds:.3g} ({share})")
        table.add_row(stage, *cells)
    table.add_section()
    table.add_row("all", *(f"{1e3 * source.total_s:.3g}" for source in sources))
    over = (f"{source.over_decode:.3g}x" for source in sources)
    table.add_row("without transfer, over decoding the images", *over)
    return table


def throughput_table(report: DataReport) -> Table:
    """Return a row for each run of the pipeline: by cores, then by clips."""
    columns = ("clips", "samples/s", "MB/s", "CPU ms: tasks", "consumer", "workers", "peak GiB")
    table = _table("the pipeline", "cores", *columns)
    runs = [(case, f" ({report.speedup(case):.2f}x)", "") for case in report.throughput]
    many = [(case, "", f" ({report.growth(case):.2f}x)") for case in report.memory]
    for cases in (runs, many):
        for case, speedup, growth in cases:
            table.add_row(
                case.source,
                str(case.cores),
                str(case.clips),
                f"{case.samples_s:.3g}{speedup}",
                f"{case.bytes_s / 1e6:.3g}",
                f"{1e3 * case.workers_cpu_s:.3g}",
                f"{1e3 * case.consumer_cpu_s:.3g}",
                str(case.workers),
                f"{_gib(case.peak_bytes)}{growth}",
            )
        table.add_section()
    return table


def scaling_table(scaled: Iterable[Scaled]) -> Table:
    """Return a row for each number of workers: weak scaling, then strong."""
    columns = ("samples of a step", "step s", "CPU s", "samples/s", "efficiency")
    more = (
        "in collectives",
        "gather MB (model)",
        "scatter MB (model)",
        "GiB a worker",
        "GFLOP/s a worker",
    )
    table = _table("scaling", "workers", *columns, *more)
    for case in scaled:
        table.add_row(
            case.kind,
            str(case.workers) if case.own else f"{case.workers}*",
            str(case.batch),
            f"{case.step_s:.3g}",
            f"{case.cpu_s:.3g}",
            f"{case.samples_s:.3g}",
            f"{100 * case.efficiency:.1f} %",
            f"{100 * case.collective_share:.1f} %",
            f"{_mb(case.sent.gathered)} ({_mb(case.predicted.gathered)})",
            f"{_mb(case.sent.scattered)} ({_mb(case.predicted.scattered)})",
            _gib(case.peak_bytes),
            f"{case.flops_s / 1e9:.3g}",
        )
    return table


def saving_table(saving: Saving) -> Table:
    """Return what a checkpoint costs."""
    table = _table(f"a checkpoint of {saving.workers} workers", "")
    table.add_row("the loop waits, s", f"{saving.blocked_s:.3g}")
    table.add_row("until it is whole, s", f"{saving.whole_s:.3g}")
    table.add_row(f"added to the {saving.window} steps beside it, s", f"{saving.extra_s:.3g}")
    table.add_row("CPU time added on a worker, s", f"{saving.extra_cpu_s:.3g}")
    table.add_row("a step without, s", f"{saving.step_s:.3g}")
    table.add_row(f"a step costs more, saving every {SAVE_EVERY}", f"{100 * saving.cost:.2f} %")
    return table


def step_model_table(predictions: Iterable[Prediction]) -> Table:
    """Return a row for each number of GPUs and way to shard."""
    table = _table(
        "GPUs",
        "shard over",
        "samples of a step",
        "gather GB",
        "scatter GB",
        "reduce GB",
        "GiB a GPU",
        "computing s",
        "GB/s needed inside",
        "Gbit/s needed between nodes",
        "samples/s",
        "efficiency",
    )
    for found in predictions:
        sent = (found.sent.gathered, found.sent.scattered, found.sent.reduced)
        table.add_row(
            str(found.gpus),
            found.shard_over,
            str(found.samples),
            *(f"{size / 1e9:.3g}" for size in sent),
            _gib(found.memory),
            f"{found.computing_s:.3g}",
            f"{found.needed_inside / 1e9:.3g}",
            f"{8 * found.needed_between / 1e9:.3g}",
            f"{found.samples_s:.3g}",
            f"{100 * found.efficiency:.1f} %",
        )
    return table


def restoring_table(report: RestoreReport) -> Table:
    """Return a row for each run of the command: by length, by workers, by memory bound."""
    columns = ("frames", "workers", "bound MB", "tile", "peak MB", "frames/s", "")
    table = _table("restoring", *columns)
    ratios: dict[str, Callable[[Restored, Restored], str]] = {
        "length": lambda found, first: f"{found.peak_bytes / first.peak_bytes:.3f}x memory",
        "workers": lambda found, first: (
            f"{found.frames_s / first.frames_s:.2f}x frames/s, "
            f"{found.busy_frames_s / first.busy_frames_s:.2f}x without starts"
        ),
        "bound": lambda found, _: f"{found.peak_bytes / (found.case.bound or 1):.3f} of the bound",
        "speed": lambda found, _: f"{found.busy_s / found.case.frames:.3g} s a frame",
    }
    for name, group in report.groups.items():
        for found in group:
            case = found.case
            table.add_row(
                f"{case.height}x{case.width}",
                str(case.frames),
                str(case.workers),
                "" if case.bound is None else _mb(case.bound),
                str(found.tile or "whole"),
                _mb(found.peak_bytes),
                f"{found.frames_s:.3g}",
                ratios[name](found, group[0]),
            )
        table.add_section()
    return table


def flow_table(report: FlowReport) -> Table:
    """Return a row for each way to find motion on each kind of pairs."""
    table = _table("pairs", "number", "method", "error", "", "s a pair")
    kinds = list(dict.fromkeys(figure.pairs for figure in report.figures))
    for kind in kinds:
        table.add_section()
        for figure in (figure for figure in report.figures if figure.pairs == kind):
            error, seconds = f"{figure.error:.3f}", f"{figure.seconds:.3f}"
            table.add_row(kind, str(figure.count), figure.method, error, figure.unit, seconds)
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(first)
    for heading in columns:
        table.add_column(heading, justify="right")
    return table


def _gib(size: int) -> str:
    return f"{size / GIB:.3g}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.4g}"
