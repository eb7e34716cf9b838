"""The model of a step on N GPUs: what it counts, and what follows from that."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vrtspike.bench.describe import describe
from vrtspike.bench.step_model import (
    Assumptions,
    Work,
    check_nodes,
    count_sent,
    count_work,
    predict,
)
from vrtspike.config.config import Config
from vrtspike.config.model import ModelSettings
from vrtspike.errors import ConfigError
from vrtspike.model.costs import Clip, Costs, Part

ASSUMED = Assumptions(1e12, network_bits_s=8e9, gpus_per_node=8)
WORK = Work(samples=2, flops=3 * 10**12, activations=1000)


class Rows(nn.Module):
    """Parameters of 64 and of 3 rows of 10 floats."""

    def __init__(self) -> None:
        super().__init__()
        self.even, self.odd = (nn.Parameter(torch.ones(rows, 10)) for rows in (64, 3))


@pytest.fixture
def config(tiny: ModelSettings) -> Config:
    train = {"workers": 4, "batch": 8, "gpu": False, "ema": 0.9}
    return Config.model_validate(
        {"model": tiny.model_dump(), "train": train, "data": {"crop": 32, "frames": 2}}
    )


def with_train(config: Config, **changes: object) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update=changes)})


def test_rings_move_all_but_the_own_slice() -> None:
    whole = 4 * 10 * (64 + 4)  # three rows over two or four ranks are padded to four
    for ranks in (2, 4):
        sent = count_sent(Rows(), ranks=ranks, copies=1, accumulation=1, reshard=True)
        once = whole * (ranks - 1) / ranks
        assert (sent.gathered, sent.scattered, sent.reduced) == (2 * once, once, 0)
    alone = count_sent(Rows(), ranks=1, copies=1, accumulation=3, reshard=True)
    assert alone.total == 0


def test_micro_batches_gather_again_only_where_weights_are_dropped() -> None:
    def sent(accumulation: int, reshard: bool) -> tuple[int, int]:
        found = count_sent(Rows(), ranks=4, copies=1, accumulation=accumulation, reshard=reshard)
        return found.gathered, found.scattered

    gathered, scattered = sent(1, False)
    assert sent(5, False) == (gathered, scattered)
    assert sent(1, True) == (2 * gathered, scattered)
    assert sent(5, True) == (10 * gathered, scattered)


def test_copies_reduce_the_slices_among_each_other() -> None:
    one = count_sent(Rows(), ranks=4, copies=1, accumulation=1, reshard=True)
    four = count_sent(Rows(), ranks=4, copies=4, accumulation=1, reshard=True)
    assert (four.gathered, four.scattered) == (one.gathered, one.scattered)
    assert four.reduced == 2 * 3 / 4 * (4 * 10 * (16 + 1))


def test_what_nodes_must_send_follows_from_the_bytes(config: Config) -> None:
    found = predict(config, WORK, (1, 8, 16, 64), ASSUMED)
    assert [(p.gpus, p.shard_over) for p in found] == [
        (1, "all"),
        (8, "all"),
        (16, "all"),
        (16, "node"),
        (64, "all"),
        (64, "node"),
    ]
    for p in found:
        assert p.samples == 2 * p.gpus and p.computing_s == 3.0
        assert p.needed_between * p.computing_s / 10 == pytest.approx(p.between_bytes)
        assert p.step_s == pytest.approx(p.computing_s + p.between_bytes / 1e9)
        assert p.efficiency == pytest.approx(p.samples_s / (p.gpus * 2 / 3.0))
        assert (p.between_bytes == 0) == (p.gpus <= 8) == (p.efficiency == 1)
    over_all, by_node = found[-2:]
    assert over_all.between_bytes == over_all.sent.gathered + over_all.sent.scattered
    assert by_node.between_bytes == 8 * by_node.sent.reduced
    assert by_node.between_bytes < over_all.between_bytes
    assert by_node.memory > over_all.memory
    assert by_node.state == found[1].state


def test_part_of_a_node_is_refused() -> None:
    check_nodes((1, 5, 8, 16), 8)
    with pytest.raises(ConfigError, match="whole number of nodes"):
        check_nodes((8, 12), 8)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_and_its_memory_are_those_of_a_described_worker(
    config: Config, monkeypatch: pytest.MonkeyPatch, accumulation: int
) -> None:
    def measure(_: ModelSettings, clip: Clip, **__: object) -> Costs:
        return Costs((Part("all", False, (1,), 10, 50 * clip.batch, 7),), 100 * clip.batch)

    monkeypatch.setattr("vrtspike.bench.describe.measure_costs", measure)
    config = with_train(config, accumulation=accumulation)
    described = describe(config)
    work = count_work(described, accumulation)
    assert described.clip == Clip(2 // accumulation, 2, 32, 32)
    assert (work.samples, work.flops) == (2, 3 * 2 * 50)
    (found,) = predict(config, work, (4,), ASSUMED)
    assert found.memory == described.peak
