"""The flow network alone: its loss, its step, its figures, and weights that fit into models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from vrtspike.config.config import Config
from vrtspike.config.loader import load_config
from vrtspike.errors import CheckpointError, ConfigError
from vrtspike.model import build_model, load_weights
from vrtspike.model.flow_network import FlowNetwork, read_flow_network
from vrtspike.model.spynet import silence
from vrtspike.samples.order import Draw, StepLayout
from vrtspike.simulate.flow_pairs import PAIRS
from vrtspike.training.flow_loss import EPS, FlowLoss, end_point_error
from vrtspike.training.flow_task import FlowTask
from vrtspike.training.learner import Learner
from vrtspike.training.parallel import full_weights
from vrtspike.training.preflight import check_before_ray, check_resume
from vrtspike.training.tasks import task_of

CPU = torch.device("cpu")
Make = Callable[..., Config]


@pytest.fixture
def make(repository: Path, tmp_path: Path) -> Make:
    """Return a function that makes a configuration of a small run."""

    def config(*others: str) -> Config:
        small = (
            "scenes.height=32",
            "scenes.width=32",
            "scenes.frames=2",
            "scenes.sequences={train: 4, val: 2}",
            "model.flow_channels=[4, 4, 4, 4]",
            "train.workers=1",
            "train.batch=1",
            "train.steps=20",
            f"run.root={tmp_path}",
        )
        return load_config(repository / "configs" / "flow.yaml", [*small, *others])

    return config


def naive_error(found: NDArray[np.float32], true: NDArray[np.float32], scale: int) -> float:
    """Compute the error at a scale pixel by pixel."""
    total = 0.0
    count, _, rows, columns = found.shape
    for n, y, x in np.ndindex(count, rows, columns):
        block = true[n, :, y * scale : (y + 1) * scale, x * scale : (x + 1) * scale]
        off = found[n, :, y, x] - block.mean(axis=(1, 2)) / scale
        total += float(np.sqrt((off**2).sum() + EPS**2))
    return total / (count * rows * columns)


@pytest.mark.parametrize("left_out", [0, 2, 3])
def test_the_loss_is_that_of_plain_loops(left_out: int) -> None:
    """Coarse pairs leave out the finest scales, whose terms are not a number."""
    rng = np.random.default_rng(0)
    sizes = [16 >> i for i in range(4 - left_out)]
    true = rng.normal(size=(2, 2, 16, 16)).astype(np.float32)
    found = [rng.normal(size=(2, 2, size, size)).astype(np.float32) for size in sizes]
    total, terms = FlowLoss()([torch.from_numpy(f) for f in found], torch.from_numpy(true))
    expected = [naive_error(flow, true, 2**i) for i, flow in enumerate(found)]
    values = [float(term) for term in terms.values()]
    assert list(terms) == ["epe_1", "epe_2", "epe_4", "epe_8"]
    assert np.isnan(values[:left_out]).all()
    assert values[left_out:] == pytest.approx(expected, rel=1e-5)
    weights = [1.0, 0.5, 0.25, 0.125][left_out:]
    assert float(total) == pytest.approx(float(np.dot(weights, expected)), rel=1e-5)


def test_pixels_of_unknown_motion_do_not_count_at_any_scale() -> None:
    rng = np.random.default_rng(0)
    true = torch.from_numpy(rng.normal(size=(2, 2, 16, 16)).astype(np.float32))
    found = [torch.zeros(2, 2, 16 >> i, 16 >> i, requires_grad=True) for i in range(4)]
    _, halves = FlowLoss()([f[1:] for f in found], true[1:])
    true[0] = torch.nan
    total, terms = FlowLoss()(found, true)
    for name, term in terms.items():
        assert term.item() == pytest.approx(halves[name].item())
    total.backward()
    for flow in found:
        assert flow.grad is not None
        assert not flow.grad[0].any() and flow.grad[1].any() and flow.grad.isfinite().all()
    total, _ = FlowLoss()(found, torch.full_like(true, torch.nan))
    assert float(total.detach()) == 0.0, "a batch of which nothing is known teaches nothing"


def test_reduced_pairs_go_through_the_coarse_levels_alone() -> None:
    torch.manual_seed(0)
    network = FlowNetwork((4, 4, 4, 4))
    pairs = torch.rand(1, 2, 3, 64, 64)
    coarse = torch.nn.functional.avg_pool2d(pairs.flatten(0, 1), 4).unflatten(0, (1, 2))
    for whole, part in zip(network(pairs)[2:], network(coarse, 4), strict=True):
        torch.testing.assert_close(part, whole, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("alone")
def test_steps_learn_level_by_level_and_weights_go_into_models(make: Make, tmp_path: Path) -> None:
    config = make()
    task = task_of(config)
    learner = Learner(task, CPU, rank=0)
    assert isinstance(task, FlowTask)
    step = learner.step_over(StepLayout(1, 1, 1), task.unpack)
    reader = task.reader("train")
    before = full_weights(learner.model)
    result = step([reader.training([Draw(0, 0, 0)])], freeze_flow=False, notices={})
    assert result.stepped and np.isnan(result.terms["epe_4"]) and result.terms["epe_8"] > 0
    coarse = full_weights(learner.model)
    changed = {name.split(".")[2] for name in before if not torch.equal(before[name], coarse[name])}
    assert changed == {"0", "1", "2"}
    result = step([reader.training([Draw(0, 0, 19)])], freeze_flow=False, notices={})
    assert result.stepped and all(value > 0 for value in result.terms.values())
    weights = full_weights(learner.model)
    assert not torch.equal(
        coarse["spynet.basic_module.5.basic_module.8.weight"],
        weights["spynet.basic_module.5.basic_module.8.weight"],
    )
    assert all(name.startswith("spynet.") for name in weights)
    _check_that_models_take(weights, config, tmp_path / "flow.safetensors")


def _check_that_models_take(weights: dict[str, Tensor], config: Config, path: Path) -> None:
    save_file(weights, path)
    for fusion, prefix in (("none", ""), ("temporal", "vrt.")):
        model = build_model(config.model.model_copy(update={"fusion": fusion}))
        report = load_weights(model, path)
        assert set(report.taken) == {f"{prefix}{name}" for name in weights}
        own = model.state_dict()
        assert all(torch.equal(own[f"{prefix}{name}"], weights[name]) for name in weights)
        save_file(own, path.with_stem(fusion))
        found = read_flow_network(path.with_stem(fusion)).state_dict()
        assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.usefixtures("alone")
def test_a_step_without_samples_of_its_own_changes_nothing(make: Make) -> None:
    """A second rank of a batch of one takes part with black frames."""
    config = make()
    task = task_of(config)
    learner = Learner(task, CPU, rank=0)
    step = learner.step_over(StepLayout(1, 1, 1), task.unpack)
    arrays = task.reader("train").training([Draw(0, 0, 0)])
    step._accompany(arrays)
    gradients = learner.parameters.take_gradients()
    assert gradients and all(not gradient.any() for gradient in gradients)


@pytest.mark.usefixtures("alone")
def test_validation_measures_end_point_errors(make: Make) -> None:
    task = task_of(make())
    model = task.build()
    assert isinstance(model, FlowNetwork)
    silence(model.spynet.basic_module)  # says that nothing moves
    figures, picture = task.validate(
        model, "val", device=CPU, autocast=torch.autocast("cpu", enabled=False)
    )
    zero = []
    for index in range(2):
        flow = task.reader("val").whole(index)["flow"]
        zero.append(np.hypot(flow[:PAIRS, 0], flow[:PAIRS, 1]).mean())
    kinds = ("sharp", "guess", "spikes", "blurred", "zero")
    assert figures == {f"epe_{kind}": pytest.approx(np.mean(zero), rel=1e-5) for kind in kinds}
    assert task.judged in figures
    assert picture is not None and picture.shape == (32, 96, 3) and model.training
    assert task.improves(1.0, 2.0) and not task.improves(2.0, 1.0)


def test_end_points_are_distances() -> None:
    found, true = torch.zeros(1, 2, 1, 1), torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    assert end_point_error(found, true).item() == 5.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("scenes=null", "none are set"),
        ("scenes.sequences.val=0", "none of the split 'val'"),
        ("scenes.frames=1", "no pair of frames"),
        ("scenes.height=100", "reduced 8 times.*100x32"),
        ("scenes.vary={noise: [0, 1]}", r"scenes\.vary"),
        ("train.freeze_flow_steps=5", "frozen"),
        ("train.minutes=5", "later steps cost more"),
    ],
)
def test_what_cannot_train_a_flow_network_is_refused(make: Make, change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        check_before_ray(make(change, "train.cpus_per_worker=0.5"))
    assert "\n" not in str(refusal.value)


def test_videos_join_the_samples_of_training_alone(make: Make, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (96, 160, 3), dtype=np.uint8)
    films = tmp_path / "film"
    films.mkdir()
    for number in range(8):
        Image.fromarray(np.roll(picture, number, axis=1)).save(films / f"{number}.png")
    config = make(f"scenes.films={{videos: [{films}], sequences: 3, source_frames: [1, 2]}}")
    check_before_ray(config)
    task = task_of(config)
    assert task.samples("train") == 4 + 3 and task.samples("val") == 2
    assert task.name("train", 3) == "train_0003" and task.name("train", 4) == "train_film_0000"
    for step in (0, 2, 19):
        arrays = task.reader("train").training([Draw(0, 3, step), Draw(0, 4, step)])
        assert len(arrays["flow"]) == 4 * PAIRS
        moved = np.nanmedian(np.abs(arrays["flow"][2 * PAIRS :, 0])) * (8 if step == 0 else 1)
        assert 0.2 < moved < 2.5, "pixels to the right, of reduced ones a part"
    small = make(f"scenes.films={{videos: [{films}], sequences: 3, reduce: [2, 2]}}")
    with pytest.raises(ConfigError, match=r"smaller than the pieces.*96x160.*at least 128x128"):
        check_before_ray(small)


def test_a_run_goes_on_with_its_scenes_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from vrtspike.checkpoints.manifest import Checkpoint
    from vrtspike.storage.folder import Folder

    config = make()
    facts: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "fingerprint": task_of(config).fingerprint,
    }
    run = Folder.at("/nowhere")
    saved = Checkpoint(run, 5, 1, facts, ())
    monkeypatch.setattr("vrtspike.training.preflight.newest", lambda *_, **__: (saved, []))
    assert check_resume(config, task_of(config), run) == 5 and not caplog.records
    longer = make("train.steps=30")
    assert check_resume(longer, task_of(longer), run) == 5
    assert "was 20 and is 30: the learning rate and the size of the pairs may jump" in caplog.text
    other = make("scenes.seed=1")
    with pytest.raises(ConfigError, match=r"another scenes\.seed"):
        check_resume(other, task_of(other), run)


def test_files_without_a_flow_network_are_refused(tmp_path: Path) -> None:
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="holds no flow network"):
        read_flow_network(tmp_path / "none.safetensors")
