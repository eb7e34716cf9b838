"""The benchmark of many workers: what is measured, what comes of it, and that teams are whole."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from vrtspike.bench import background_load as others
from vrtspike.bench.background_load import watching_others
from vrtspike.bench.describe import unbuilt
from vrtspike.bench.efficiency import Case, Kind, cases_of, scaled_of
from vrtspike.bench.generated import Sizes, make_clip, write_shards
from vrtspike.bench.process_pool import Team, team
from vrtspike.bench.save_cost import SAVE_EVERY, measure_saving
from vrtspike.bench.scaling import Fleet, ScalingPlan, complete, run_scaling
from vrtspike.bench.step_model import ASSUMED_FLOPS, Sent, Work, count_sent
from vrtspike.bench.tables import saving_table, scaling_table, step_model_table
from vrtspike.bench.worker import Taken, Turn, invented, own_cores
from vrtspike.cli.app import app
from vrtspike.config.config import Config
from vrtspike.config.model import ModelSettings
from vrtspike.errors import ConfigError, ResourceError
from vrtspike.samples.order import Draw
from vrtspike.samples.sample import SampleReader
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.storage.folder import Folder

NOTHING = Sent(0, 0, 0)
FLEET = Fleet(gpus=(8, 16), gpus_per_node=8, flops_s=None, network_bits_s=1e11)


def configured(tiny: ModelSettings, **train: object) -> Config:
    settings = {"workers": 2, "batch": 4, "gpu": False, "clip_norm": 1.0, "ema": 0.9}
    return Config.model_validate(
        {
            "model": tiny.model_dump(),
            "train": settings | train,
            "data": {"crop": 32, "frames": 2},
            "loss": {"vgg": 0.0},
        }
    )


def took(*seconds: float, **more: float) -> Taken:
    return Taken(seconds, 0.25 * sum(seconds), 0.0, NOTHING, 10, **more)


def test_weak_keeps_a_workers_samples_and_strong_a_steps(tiny: ModelSettings) -> None:
    config = configured(tiny, batch=8, accumulation=2)
    weak: list[tuple[Kind, Case]] = [("weak", Case(n, 4 * n)) for n in (1, 3, 4)]
    apart: list[tuple[Kind, Case]] = [("apart", Case(n, 4 * n, n > 1)) for n in (1, 3, 4)]
    strong: list[tuple[Kind, Case]] = [("strong", Case(n, 8)) for n in (1, 4)]
    assert cases_of(config, (1, 3, 4)) == weak + apart + strong


def test_efficiency_is_the_median_of_the_turns_ratios(tiny: ModelSettings) -> None:
    config = configured(tiny)
    named = cases_of(config, (1, 2))
    # Two samples a worker. Turn by turn, the machine was quick, slow, and in between.
    turns = {
        Case(1, 2): [[took(1.0, 1.0, 9.0)], [took(10.0)], [took(2.0)]],
        Case(2, 4): [[took(2.0), took(2.0)], [took(12.5), took(12.5)], [took(2.5), took(2.5)]],
        Case(2, 4, True): [[took(1.25)], [took(12.5)], [took(2.0)]],
        Case(1, 4): [[took(2.4)], [took(18.75)], [took(4.0)]],
    }
    work = Work(samples=2, flops=500, activations=0, note="")
    found = {(s.kind, s.workers): s for s in scaled_of(config, named, turns, work, gpu=False)}
    assert {key: s.efficiency for key, s in found.items()} == pytest.approx(
        {
            ("weak", 1): 1.0,
            ("weak", 2): 0.8,
            ("apart", 1): 1.0,
            ("apart", 2): 0.8,
            ("strong", 1): 1.0,
            ("strong", 2): 0.75,
        }
    )
    two, alone = found["weak", 2], found["strong", 1]
    assert (two.step_s, two.samples_s) == (2.5, 4 / 2.5)
    assert two.collective_share == pytest.approx(0.25)
    assert two.flops_s == 500 / 2.5 and alone.flops_s == 1000 / 4.0
    assert two.predicted.gathered > 0 and alone.predicted.total == 0
    assert found["apart", 2].predicted.total == 0


def test_each_worker_has_cores_of_its_own_or_none_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5, 7, 9, 11})
    assert [own_cores(rank, 2, 2) for rank in range(2)] == [[3, 5], [7, 9]]
    assert [own_cores(rank, 3, 2) for rank in range(3)] == [None] * 3


def test_usual_workers_fit_the_cores(tiny: ModelSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    two_threads = configured(tiny, threads_per_worker=2)
    assert complete(two_threads, ScalingPlan())[1].workers == (1, 2)
    assert complete(two_threads, ScalingPlan(workers=(8, 1, 8)))[1].workers == (1, 8)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused(tiny: ModelSettings) -> None:
    with pytest.raises(ResourceError, match=r"no GPU on this machine.*--no-measure"):
        complete(configured(tiny, gpu=True), ScalingPlan())


def test_a_flow_network_is_refused(tiny: ModelSettings) -> None:
    with pytest.raises(ConfigError, match=r"train\.task.*got flow, expected restore"):
        run_scaling(configured(tiny, task="flow"), None, FLEET, lambda *_: None)


def test_a_speed_is_given_or_measured_or_assumed() -> None:
    given = Fleet((8,), 8, 5e12, 1e11).assumptions(3e12)
    assert (given.flops_s, given.flops_from) == (5e12, "given")
    assert FLEET.assumptions(3e12).flops_s == 3e12
    assumed = FLEET.assumptions(None)
    assert assumed.flops_s == ASSUMED_FLOPS and "ASSUMED" in assumed.flops_from


def test_invented_samples_have_the_shapes_of_real_ones(tiny: ModelSettings, tmp_path: Path) -> None:
    sizes = Sizes(height=48, width=64, spike_scale=1, frames=2, steps=20, crop=32, bins=4)
    manifest = write_shards(tmp_path, sizes, [make_clip(sizes, seed) for seed in range(2)], 2)
    reader = SampleReader(
        shards=str(tmp_path),
        split="train",
        fingerprint=manifest.fingerprint,
        crop=32,
        augment=True,
        spikes=SpikeRepresentation(4),
        seed=0,
    )
    real = reader.training([Draw(0, 0), Draw(0, 1)])
    made = invented(configured(tiny), 2, seed=0)
    assert {k: (v.shape, v.dtype) for k, v in made.items()} == {
        k: (v.shape, v.dtype) for k, v in real.items()
    }
    plain = invented(configured(tiny.model_copy(update={"fusion": "none"})), 2, seed=0)
    assert plain.keys() == {"blurred", "sharp"}
    assert not np.array_equal(made["blurred"], invented(configured(tiny), 2, seed=1)["blurred"])


def test_others_are_all_but_this_process_and_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks, now, own = others.TICKS, [100.0], [5.0]
    (tmp_path / "7").mkdir()

    def account(busy_s: float, child_s: float) -> None:
        user, system = round(ticks * (busy_s - 1)), ticks
        (tmp_path / "stat").write_text(f"cpu  {user} 0 {system} 900 80 0 0 0 3 0\ncpu0 1\n")
        fields = [
            "S",
            *10 * ["0"],
            str(round(ticks * child_s / 2)),
            str(round(ticks * child_s / 2)),
        ]
        (tmp_path / "7" / "stat").write_text(f"7 (a) b) {' '.join(fields)} 0 0\n")

    monkeypatch.setattr(others, "PROC", tmp_path)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.process_time", lambda: own[0])
    children = [SimpleNamespace(pid=7)]
    monkeypatch.setattr("multiprocessing.active_children", lambda: children)
    account(50.0, 3.0)
    with watching_others() as found:
        account(70.0, 15.0)
        now[0], own[0] = 110.0, 6.0
    assert found.cores == pytest.approx((20.0 - 12.0 - 1.0) / 10.0)


class Scripted(Team):
    """A team whose steps take a second, and half a second more beside a checkpoint."""

    def __init__(self) -> None:
        super().__init__(2, [])
        self.asked: list[Turn] = []

    def take(self, turn: Turn) -> list[Taken]:
        self.asked.append(turn)
        if not turn.save:
            return 2 * [took(*turn.steps * [1.0])]
        return 2 * [took(*turn.steps * [1.5], blocked_s=0.25, waited_s=0.125, whole_s=4.0)]


def test_saving_costs_what_steps_take_longer(tiny: ModelSettings) -> None:
    members = Scripted()
    found = measure_saving(configured(tiny), members, 3, Folder("x"), lambda: None)
    # Twice 4 s of steps of 1.5 s each.
    assert found.window == 6
    assert [(turn.steps, turn.save) for turn in members.asked[1:]] == 3 * [(6, False), (6, True)]
    assert {turn.batch for turn in members.asked} == {4}
    assert found.extra_s == pytest.approx(6 * 0.5 + 0.25 + 0.125)
    assert found.cost == pytest.approx(found.extra_s / SAVE_EVERY)


@pytest.mark.slow
@pytest.mark.parametrize("reshard", [True, False])
def test_workers_send_what_the_model_says(
    tiny: ModelSettings, tmp_path: Path, reshard: bool
) -> None:
    config = configured(tiny, accumulation=2, reshard=reshard)
    with team(config, 2, gpu=False, folder=tmp_path, checkpoints=Folder("unused")) as members:
        found = members.take(Turn(batch=4, steps=2))
        again = members.take(Turn(batch=2, steps=1))
    for accumulation, taken in ((2, found), (1, again)):
        expected = count_sent(
            unbuilt(config.model), ranks=2, copies=1, accumulation=accumulation, reshard=reshard
        )
        for worker in taken:
            assert (worker.sent.gathered, worker.sent.scattered) == (
                expected.gathered,
                expected.scattered,
            )
            # One small all-reduce ends a step.
            assert 0 < worker.sent.reduced < 1000
            assert 0 < worker.collective_s < sum(worker.seconds)
            assert worker.peak_bytes > 0
    assert len(found[0].seconds) == 2


@pytest.mark.slow
def test_a_worker_that_fails_says_why(tiny: ModelSettings, tmp_path: Path) -> None:
    config = configured(tiny)
    missing = config.loss.model_copy(update={"vgg": 0.1, "weights_dir": tmp_path / "missing"})
    config = config.model_copy(update={"loss": missing})
    with (
        pytest.raises(ResourceError, match=r"missing/vgg16_features\.pt"),
        team(config, 2, gpu=False, folder=tmp_path, checkpoints=Folder("unused")) as members,
    ):
        members.take(Turn(batch=4, steps=1))


@pytest.mark.slow
def test_a_worker_that_dies_is_named(tiny: ModelSettings, tmp_path: Path) -> None:
    with (
        pytest.raises(ResourceError, match=r"worker 1 of 2.*died"),
        team(
            configured(tiny), 2, gpu=False, folder=tmp_path, checkpoints=Folder("unused")
        ) as members,
    ):
        # The first waits in a collective for the second, which is killed.
        second = max(multiprocessing.active_children(), key=lambda process: process.pid or 0)
        second.kill()
        members.take(Turn(batch=4, steps=1))


@pytest.mark.slow
def test_a_report_is_whole_and_leaves_nothing(
    tiny: ModelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vrtspike.bench.save_cost.SAVE_STEPS", 1)
    config = configured(tiny.model_copy(update={"fusion": "none"}), batch=2)
    config = config.model_copy(
        update={"run": config.run.model_copy(update={"root": tmp_path / "runs"})}
    )
    turns: list[tuple[int, int]] = []
    found = run_scaling(
        config, ScalingPlan((1, 2), 1, 1), FLEET, lambda done, total: turns.append((done, total))
    )
    assert turns[-1][0] == turns[-1][1]
    assert [(s.kind, s.workers, s.batch) for s in found.scaled] == [
        ("weak", 1, 1),
        ("weak", 2, 2),
        ("apart", 1, 1),
        ("apart", 2, 2),
        ("strong", 1, 2),
        ("strong", 2, 2),
    ]
    apart = next(s for s in found.scaled if s.kind == "apart" and s.workers == 2)
    assert apart.sent.gathered == apart.sent.scattered == apart.sent.reduced == 0
    assert found.saving is not None and found.saving.workers == 2
    assert found.saving.blocked_s > 0 and found.saving.whole_s > 0
    assert list((tmp_path / "runs").iterdir()) == []
    json.dumps(found.as_dict())
    console = Console(width=160, record=True)
    console.print(
        scaling_table(found.scaled), saving_table(found.saving), step_model_table(found.predictions)
    )
    assert "strong" in console.export_text()


@pytest.mark.slow
def test_the_command_predicts_without_measuring(repository: Path, tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    config = repository / "configs/debug.yaml"
    arguments = ["bench", "scaling", "-c", str(config), "--no-measure", "--gpus", "16"]
    result = CliRunner().invoke(app, [*arguments, "--tflops", "50", "--json", str(facts)])
    assert result.exit_code == 0, result.output
    written = json.loads(facts.read_text())
    assert written["scaled"] == [] and written["saving"] is None
    assert [p["shard_over"] for p in written["predictions"]] == ["all", "node"]
    assert "50 TFLOP/s (given" in result.output
