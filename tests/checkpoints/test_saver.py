"""Saving beside training: one at a time, copies not live tensors, and storage that fails."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from tests.checkpoints.test_manifest import checkpoints
from tests.training.two_blocks import TwoBlocks
from vrtspike.checkpoints import read_write as saving
from vrtspike.checkpoints.local_part import local
from vrtspike.checkpoints.manifest import checkpoint_steps, inspect, newest
from vrtspike.checkpoints.read_write import CheckpointWriter, empty_tensors, load, stored_keys
from vrtspike.checkpoints.saver import Saver
from vrtspike.errors import CheckpointError, DataFormatError
from vrtspike.storage.atomic import Sink
from vrtspike.storage.folder import Folder
from vrtspike.training.parallel import parallelize

__all__ = ["checkpoints"]
Stream = Callable[[Folder, str], AbstractContextManager[Sink]]
FACTS = {"best": None}


@pytest.fixture
def saver(alone: None, checkpoints: Folder) -> Iterator[Saver]:
    made = make_saver(checkpoints)
    yield made
    made.wait()


def make_saver(checkpoints: Folder, **more: Any) -> Saver:
    return Saver(checkpoints, group=dist.group.WORLD, keep=9, **more)


def around(monkeypatch: pytest.MonkeyPatch, before_write: Callable[[str, Sink], None]) -> None:
    """Do something before every write to a file of a checkpoint."""
    plain: Stream = Folder.stream

    class Watched:
        def __init__(self, file: str, sink: Sink) -> None:
            self.file, self.sink = file, sink

        def write(self, data: bytes | memoryview) -> object:
            before_write(self.file, self.sink)
            return self.sink.write(data)

    @contextmanager
    def stream(self: Folder, file: str) -> Iterator[Sink]:
        with plain(self, file) as sink:
            yield Watched(file, sink)

    monkeypatch.setattr(Folder, "stream", stream)


def full(after: int, file: str = "rank") -> Callable[[str, Sink], None]:
    """Return what makes storage full for the first `after` tries to write a file."""
    left = [after]

    def fail(name: str, sink: Sink) -> None:
        if name.startswith(file) and left[0]:
            left[0] -= 1
            sink.write(b"a part")
            raise OSError(errno.ENOSPC, "No space left on device")

    return fail


def everything_below(folder: Folder) -> list[str]:
    """Return all files, hidden ones too."""
    if folder.remote:
        return list(folder.listing())
    return [str(path) for path in folder.path.rglob("*") if path.is_file()]


def test_one_save_at_a_time_and_of_the_state_as_it_was(
    saver: Saver, checkpoints: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, writing, most = threading.Event(), [0], [0]

    def wait(file: str, sink: Sink) -> None:
        if file.startswith("rank"):
            writing[0] += 1
            most[0] = max(most)
            most.append(writing[0])
            assert gate.wait(60)
            writing[0] -= 1

    around(monkeypatch, wait)
    state, facts = {"weight": torch.arange(5.0)}, {"best": [1.0, 1]}
    saver.save(1, state, facts, best_step=None)
    state["weight"].add_(100)
    facts["best"][1] = 7
    assert saver.busy and saver.finished() == []
    second = threading.Thread(target=saver.save, args=(2, state, facts), kwargs={"best_step": None})
    second.start()
    second.join(timeout=0.3)
    assert second.is_alive(), "a second save went on beside the first"
    gate.set()
    second.join()
    state["weight"].zero_()
    saver.wait()
    assert not saver.busy and max(most) == 1
    assert [(r.step, r.error) for r in saver.finished()] == [(1, None), (2, None)]
    assert saver.finished() == []
    for one, first, best in zip(inspect(checkpoints), (100, 0), (7, 1), strict=True):
        assert one.saved is not None and one.saved.facts == {"best": [1.0, best]}
        found = empty_tensors(one.saved, "")
        load(one.saved, found)
        assert found["weight"].tolist() == [first + number for number in range(5)]


@pytest.mark.parametrize("file", ["rank", "manifest"])
def test_a_save_that_fails_is_a_result_and_leaves_nothing(
    saver: Saver, checkpoints: Folder, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    around(monkeypatch, full(1, file))
    for step in (1, 2):
        saver.save(step, {"weight": torch.ones(3)}, FACTS, best_step=None)
        saver.wait()
        if step == 1:
            assert everything_below(checkpoints) == [] and checkpoint_steps(checkpoints) == []
    failed, done = saver.finished()
    assert isinstance(failed.error, CheckpointError) and done.error is None
    assert failed.step == 1 and "No space left on device" in str(failed.error)
    assert checkpoint_steps(checkpoints) == [2]


def test_what_must_not_be_lost_is_tried_again(
    alone: None, checkpoints: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, pauses = [0.0], []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    saver = make_saver(checkpoints, clock=lambda: now[0], sleep=sleep)
    around(monkeypatch, full(7))
    state = {"weight": torch.ones(3)}
    told: list[CheckpointError] = []
    saver.save_with_retries(1, state, FACTS, best_step=None, timeout_s=1000, failing=told.append)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    assert len(told) == 7 and all("No space left" in str(error) for error in told)
    assert [result.error for result in saver.finished()] == [None]
    assert newest(checkpoints)[0] is not None
    around(monkeypatch, full(99))
    pauses.clear()
    with pytest.raises(CheckpointError, match=r"No space left.*tried for 5 s") as caught:
        saver.save_with_retries(2, state, FACTS, best_step=None, timeout_s=5, failing=told.append)
    assert pauses == [1, 2, 2] and "continues from its newest checkpoint" in str(caught.value)
    assert checkpoint_steps(checkpoints) == [1]


def test_old_checkpoints_that_cannot_be_deleted_are_a_warning(
    saver: Saver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Folder) -> list[str]:
        raise DataFormatError("cannot list the folder")

    monkeypatch.setattr(Folder, "folders", fail)
    saver.save(1, {"weight": torch.ones(1)}, FACTS, best_step=None)
    saver.wait()
    assert [r.error for r in saver.finished()] == [None]
    assert "old checkpoints were not deleted: cannot list the folder" in caplog.text


def test_every_type_and_shape_survives_and_layouts_may_change(
    saver: Saver, checkpoints: Folder
) -> None:
    torch.manual_seed(0)
    state: dict[str, Tensor] = {
        "bf16": torch.randn(3, 5).bfloat16(),
        "byte": torch.randint(0, 255, (7,), dtype=torch.uint8),
        "bool": torch.rand(5) > 0.5,
        "scalar": torch.tensor(3.0, dtype=torch.float64),
        "none": torch.empty(0, 4),
        "turned": torch.randn(4, 6).T,
        "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
    }
    for step in (1, 2, 3):
        saver.save(step, state, FACTS, best_step=None)
        saver.wait()
        saved, _ = newest(checkpoints)
        assert saved is not None and saved.step == step and stored_keys(saved) == set(state)
        found = empty_tensors(saved, "")
        load(saved, found)
        for key, value in state.items():
            assert found[key].dtype == value.dtype and found[key].shape == value.shape
            bits = [t.contiguous().view(torch.uint8) for t in (found[key], value) if t.ndim]
            assert not bits or torch.equal(*bits), key
        assert found["scalar"] == state["scalar"]
        state["byte"] += 1
        if step == 1:
            state["moment"] = torch.randn(9)


def test_a_folder_that_nodes_do_not_share_is_said(
    saver: Saver, checkpoints: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "SEEN_WITHIN_S", 0.0)
    monkeypatch.setattr(Folder, "size", lambda self, file: None)
    saver.save(1, {"weight": torch.ones(3)}, FACTS, best_step=None)
    saver.wait()
    error = saver.finished()[0].error
    assert "rank 0 does not see what another rank has written" in str(error)
    assert "run.root" in str(error) and "rank_00000" in str(error)
    assert everything_below(checkpoints) == []


def test_what_many_hold_is_written_once_and_evenly() -> None:
    both = [(f"weight{number}", (0, 0), 10 * number) for number in range(1, 8)]
    held = [[*both, ("rng/0", (0,), 50)], [*both, ("rng/1", (0,), 50)], both]
    owners = saving._owners(held)
    assert owners.keys() == {part[:2] for parts in held for part in parts}
    assert owners["rng/0", (0,)] == 0 and owners["rng/1", (0,)] == 1
    loads = [0, 0, 0]
    for key, offsets, size in {part for parts in held for part in parts}:
        loads[owners[key, offsets]] += size
    assert sum(loads) == 380 and max(loads) - min(loads) <= 20


def rank_of_two(rank: int, folder: str) -> None:
    """Save on two ranks: sharded over both, then a copy on each; then with one rank failing."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    expected = {}
    for step, ranks_per_node in ((1, None), (2, 1)):
        torch.manual_seed(step)
        model = parallelize(
            TwoBlocks,
            torch.device("cpu"),
            compile_blocks=False,
            reshard=True,
            ranks_per_node=ranks_per_node,
        )
        state: dict[str, Any] = dict(model.state_dict()) | {"same": torch.arange(4.0)}
        state[f"rng/{rank}"] = torch.full((3,), rank)
        whole = {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in state.items()}
        expected[step] = whole
        saver = Saver(Folder.at(folder).below("c"), group=dist.new_group(backend="gloo"), keep=9)
        saver.save(step, state, FACTS, best_step=None)
        saver.wait()
        assert saver.finished()[0].error is None
        saved, _ = newest(Folder.at(folder).below("c"))
        assert saved is not None and saved.world_size == 2 and saved.step == step
        kept = {key: local(value).clone() for key, value in state.items()}
        with torch.no_grad():
            for value in state.values():
                local(value).zero_()
        load(saved, state)
        assert all(torch.equal(local(state[key]), kept[key]) for key in kept)
    errors = []
    plain = CheckpointWriter._write_own

    def fail(self: CheckpointWriter, *arguments: Any) -> Any:
        plain(self, *arguments)
        if rank == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return {}

    CheckpointWriter._write_own = fail
    saver.save(3, state, FACTS, best_step=None)
    saver.wait()
    errors.append(str(saver.finished()[0].error))
    torch.save((expected, errors), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_two_ranks_save_and_one_loads(tmp_path: Path) -> None:
    mp.spawn(rank_of_two, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    (expected, errors), (others, same_errors) = ranks
    assert errors == same_errors and "No space left on device" in errors[0]
    folder = Folder.at(tmp_path / "c")
    assert checkpoint_steps(folder) == [2, 1]
    for one in inspect(folder):
        assert one.saved is not None
        wanted = expected[one.step] | others[one.step]
        found = empty_tensors(one.saved, "")
        load(one.saved, found)
        torchs = {key: torch.zeros_like(value) for key, value in wanted.items()}
        dcp.load(torchs, storage_reader=dcp.HuggingFaceStorageReader(one.saved.folder.where))
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
        assert all(torch.equal(torchs[key], wanted[key]) for key in wanted)
        # Nothing is stored twice, and both ranks write.
        stored = [load_file(one.saved.folder.path / file) for file in one.saved.files]
        sizes = [sum(part.nbytes for part in parts.values()) for parts in stored]
        assert sum(sizes) == sum(value.nbytes for value in wanted.values())
        assert len(sizes) == 2 and min(sizes) > 0.3 * sum(sizes)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_state_on_the_gpu_is_copied_before_it_changes(saver: Saver, checkpoints: Folder) -> None:
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cuda", (1,))
    parts = [torch.randn(64 << 20, device="cuda"), torch.randn(7, 3, device="cuda").bfloat16()]
    state: dict[str, Any] = {
        f"part{number}": DTensor.from_local(part, mesh, [Shard(0)])
        for number, part in enumerate(parts)
    }
    state |= {"plain": torch.randn(5, device="cuda"), "rng": torch.cuda.get_rng_state()}
    for step in (1, 2):
        kept = {key: local(value).cpu().clone() for key, value in state.items()}
        saver.save(step, state, FACTS, best_step=None)
        for value in state.values():
            local(value).zero_()
        saver.wait()
        saved, _ = newest(checkpoints)
        assert saved is not None and saved.step == step
        load(saved, state)
        assert all(torch.equal(local(state[key]).cpu(), kept[key]) for key in kept)
        local(state["part1"]).add_(1)
