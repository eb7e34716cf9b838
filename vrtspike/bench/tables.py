"""The tables that `vrtspike describe` and `vrtspike bench model` show on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from vrtspike.bench.describe import Description
from vrtspike.bench.model import Result
from vrtspike.bench.step_model import Prediction

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


def _table(first: str, *columns: str) -> Table:
    table = Table(first)
    for heading in columns:
        table.add_column(heading, justify="right")
    return table


def _gib(size: int) -> str:
    return f"{size / GIB:.3g}"
