"""Four processes do together what one does alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.test_validation import validated
from tests.training.two_blocks import (
    CPU,
    Arrays,
    TwoBlocks,
    batch,
    make_step,
    reference_optimizer,
    reference_step,
)
from vrtspike.checkpoints.local_part import LocalParameters, local
from vrtspike.config.model import ModelSettings
from vrtspike.errors import ConfigError, VrtSpikeError
from vrtspike.model import build_model
from vrtspike.samples.order import StepLayout
from vrtspike.training.parallel import full_weights, parallelize

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
Found = dict[str, Any]
RANKS, STEPS, BAD, SAMPLES = 4, 3, 1, 5
CASES = {
    # Ranks, ranks of a node, runs of a step.
    "full": (4, None, 4),
    "hybrid": (4, 2, 8),
    "copies": (4, 1, 4),
    "three ranks": (3, None, 4),
    "fewer runs than ranks": (4, None, 2),
}
FUSIONS = ("temporal", "window", "none")


def builder(seed: int) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(seed)
        return TwoBlocks()

    return build


def run_of(step: int, number: int) -> Arrays:
    """Return a run of two samples."""
    return batch(2, 100 * step + number)


def micro_batches(layout: StepLayout, rank: int, step: int) -> Iterator[Arrays]:
    """Yield what a rank trains on; what it repeats is NaN all over."""
    for micro in range(layout.accumulation):
        number = min(micro * layout.ranks + rank, layout.runs - 1)
        arrays = dict(run_of(step, number))
        if not layout.counts(micro, rank):
            arrays["blurred"] = np.full(arrays["blurred"].shape, np.nan, np.float32)
        yield arrays


def trained(rank: int, ranks: int, ranks_per_node: int | None, runs: int, **how: Any) -> Found:
    """Take some steps; in one of them, where `bad` says so, one rank meets a NaN."""
    bad, reshard = how.pop("bad", False), how.pop("reshard", True)
    layout = StepLayout(batch=2 * runs, samples=2, ranks=ranks)
    # Seeds of the other ranks differ: their draws must not matter.
    model = parallelize(
        builder(rank),
        CPU,
        compile_blocks=False,
        reshard=reshard,
        ranks_per_node=ranks_per_node,
    )
    step, parameters = make_step(model, layout, rank, reshard=reshard, **how)
    results, calls = [], []
    for number in range(STEPS):
        spoil = bad and number == BAD and rank == 1
        handle = model.register_forward_hook(lambda *x, by=np.nan if spoil else 1.0: x[2] * by)
        with Recorder() as recorder:
            results.append(
                step(
                    micro_batches(layout, rank, number),
                    freeze_flow=False,
                    notices={"stop": False, "preempted": rank == 2 and number == BAD},
                )
            )
        handle.remove()
        calls.append(recorder.calls)
    return {
        "results": [vars(result) for result in results],
        "calls": calls,
        "gradients": {
            part.grad.dtype for part in parameters.parts.values() if part.grad is not None
        },
        "weights": full_weights(model),
    }


class Recorder(TorchDispatchMode):
    """Note collectives, and the types of what they move."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, torch.dtype]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.namespace == "c10d":
            # The base forms take a tensor, `allreduce_` a list of them.
            moved = args[0] if isinstance(args[0], Tensor) else args[0][0]
            self.calls.append((func._opname, moved.dtype))
        return func(*args, **(kwargs or {}))


def built(settings: ModelSettings, rank: int, ranks_per_node: int | None) -> dict[str, bool]:
    """Tell for each tensor of the real model whether it is that of a plain build, bit by bit."""

    def build() -> nn.Module:
        return build_model(settings)

    torch.manual_seed(rank)
    model = parallelize(
        build, CPU, compile_blocks=False, reshard=True, ranks_per_node=ranks_per_node
    )
    torch.manual_seed(0)
    plain = build()
    expected = dict(plain.named_parameters()) | dict(plain.named_buffers())
    found = dict(model.named_parameters()) | dict(model.named_buffers())
    assert found.keys() == expected.keys()
    return {
        name: torch.equal(local(tensor), slice_of(expected[name], tensor))
        for name, tensor in found.items()
    }


def slice_of(whole: Tensor, like: Tensor) -> Tensor:
    """Return the rows of a tensor that a rank should hold."""
    if not isinstance(like, DTensor):
        return whole
    mesh = like.device_mesh
    rows = whole.chunk(mesh.size(mesh.ndim - 1))
    rank = mesh.get_local_rank(mesh.ndim - 1)
    return rows[rank] if rank < len(rows) else whole[:0]


def parts_are_live(rank: int) -> bool:
    """Tell whether the model computes with what is written into the local parts."""
    model = parallelize(builder(rank), CPU, compile_blocks=False, reshard=True).eval()
    parameters = LocalParameters(model)
    parameters.copy_from([torch.full_like(part, 0.5) for part in parameters.tensors()])
    with torch.no_grad():
        found = model(torch.ones(1, 1, 3, 8, 8))
        plain = TwoBlocks().eval()
        for parameter in plain.parameters():
            parameter.fill_(0.5)
        return torch.equal(found, plain(torch.ones(1, 1, 3, 8, 8)))


def failure_of(rank: int) -> str:
    """Return the error of building where the first rank alone cannot read its weights."""

    def load(model: nn.Module) -> None:
        assert rank == 0
        raise ConfigError("no such weights")

    try:
        parallelize(builder(0), CPU, load=load, compile_blocks=False, reshard=True)
    except VrtSpikeError as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def on_rank(rank: int, folder: str, tiny: ModelSettings) -> None:
    """Do everything that four processes, then three, are asked for."""
    torch.set_num_threads(1)
    found: Found = {}
    for ranks in (4, 3):
        if rank >= ranks:
            continue
        store = dist.FileStore(f"{folder}/store{ranks}", ranks)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
        for name, case in CASES.items():
            if case[0] == ranks:
                found[name] = trained(rank, *case)
        model = parallelize(builder(rank), CPU, compile_blocks=False, reshard=True)
        turns: list[int] = []
        found[f"validated by {ranks}"] = (*validated(model, SAMPLES, turns), len(turns))
        if ranks == 4:
            found |= with_four(rank, tiny)
        dist.destroy_process_group()
    torch.save(found, f"{folder}/{rank}.pt")


def with_four(rank: int, tiny: ModelSettings) -> Found:
    found: Found = {
        "bad": trained(rank, 4, None, 4, bad=True),
        "bfloat16": trained(rank, 4, None, 8, precision="bfloat16"),
        "failure": failure_of(rank),
        "live": parts_are_live(rank),
    }
    for reshard in (True, False):
        for runs in (4, 16):
            found[f"calls {reshard} {runs // 4}"] = trained(rank, 4, None, runs, reshard=reshard)
    for fusion in FUSIONS:
        settings = tiny.model_copy(update={"fusion": fusion})
        found[f"built {fusion}"] = built(settings, rank, 2 if fusion == "none" else None)
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory, tiny: ModelSettings) -> list[Found]:
    """Run four processes once; return what each of them found."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(on_rank, (str(folder), tiny), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(RANKS)]


def reference(runs: int, steps: list[int]) -> tuple[list[tuple[float, float]], nn.Module]:
    """Train in a plain loop on whole batches; return losses and norms, and the model."""
    model = builder(0)()
    optimizer = reference_optimizer(model)
    figures = []
    for step in steps:
        parts = [run_of(step, number) for number in range(runs)]
        whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        figures.append(reference_step(model, optimizer, whole))
    return figures, model


def assert_weights(found: Found, model: nn.Module) -> None:
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(found["weights"][name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_losses_norms_and_weights_are_those_of_a_plain_loop(ranks: list[Found], case: str) -> None:
    size, _, runs = CASES[case]
    figures, model = reference(runs, list(range(STEPS)))
    for found in ranks[:size]:
        for result, expected in zip(found[case]["results"], figures, strict=True):
            assert (result["loss"], result["grad_norm"]) == pytest.approx(expected, rel=1e-5)
            assert result["terms"] == pytest.approx({"charbonnier": expected[0]}, rel=1e-5)
            assert result["stepped"]
    assert_weights(ranks[0][case], model)


def test_a_nan_of_one_rank_is_skipped_by_all(ranks: list[Found]) -> None:
    figures, model = reference(4, [step for step in range(STEPS) if step != BAD])
    for found in ranks:
        results = found["bad"]["results"]
        assert [result["stepped"] for result in results] == [step != BAD for step in range(STEPS)]
        assert results[BAD]["loss"] != results[BAD]["loss"]
        losses = [result["loss"] for result in results if result["stepped"]]
        assert losses == pytest.approx([loss for loss, _ in figures], rel=1e-5)
    assert_weights(ranks[0]["bad"], model)


def test_what_one_rank_is_told_all_know(ranks: list[Found]) -> None:
    for found in ranks:
        notices = [result["notices"] for result in found["full"]["results"]]
        assert notices == [{"preempted"} if step == BAD else set() for step in range(STEPS)]


@pytest.mark.parametrize("reshard", [True, False])
def test_accumulation_communicates_once(ranks: list[Found], reshard: bool) -> None:
    def count(accumulation: int, name: str) -> list[int]:
        calls = ranks[0][f"calls {reshard} {accumulation}"]["calls"]
        return [sum(call[0] == name for call in step) for step in calls]

    # Two blocks and the rest, whose only parameter has no gradient.
    assert count(1, "_reduce_scatter_base_") == count(4, "_reduce_scatter_base_") == [2] * STEPS
    once, often = (count(n, "_allgather_base_") for n in (1, 4))
    assert min(once) > 0
    assert often == (once if not reshard else [4 * calls for calls in once])


def test_bfloat16_keeps_gradients_and_their_reduction_in_float32(ranks: list[Found]) -> None:
    (exact, *_), _ = reference(8, [0])
    for found in ranks:
        loss = found["bfloat16"]["results"][0]["loss"]
        assert loss == pytest.approx(exact[0], rel=1e-2) and loss != pytest.approx(
            exact[0], rel=1e-6
        )
        assert found["bfloat16"]["gradients"] == {torch.float32}
        # The outcome of a step, one all-reduce, is in float64.
        for step in found["bfloat16"]["calls"]:
            assert {kind for _, kind in step[:-1]} == {torch.float32}
            assert step[-1] == ("allreduce_", torch.float64)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_model_is_that_of_a_plain_build(ranks: list[Found], fusion: str) -> None:
    for found in ranks:
        assert [name for name, same in found[f"built {fusion}"].items() if not same] == []


def test_parts_share_memory_with_the_model(ranks: list[Found]) -> None:
    assert [found["live"] for found in ranks] == [True] * RANKS


def test_an_error_of_the_first_rank_is_raised_on_all(ranks: list[Found]) -> None:
    assert {found["failure"] for found in ranks} == {"ConfigError: no such weights"}


def test_validation_does_not_depend_on_the_ranks(ranks: list[Found], alone: None) -> None:
    score, picture = validated(builder(0)(), SAMPLES, [])
    for size in (3, 4):
        assert {found[f"validated by {size}"][0] for found in ranks[:size]} == {score}
        pictures = [found[f"validated by {size}"][1] for found in ranks[:size]]
        assert np.array_equal(pictures[0], picture) and pictures[1:] == [None] * (size - 1)
        assert [found[f"validated by {size}"][2] for found in ranks[:size]] == [2] * size
