"""Weights become a model by their run folder, by themselves, or with a configuration."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.restoration.clip_files import BINS, Placed
from tests.spikes.naive_voxels import normalize_voxels, voxelize
from vrtspike.config.config import Config
from vrtspike.config.loader import change, dump_config, load_config
from vrtspike.errors import CheckpointError, ConfigError, DataFormatError, VrtSpikeError
from vrtspike.metrics.image import to_uint8
from vrtspike.model import build_model
from vrtspike.restoration.restorer import Restorer
from vrtspike.restoration.tiled import restore
from vrtspike.runs.export import export_metadata, write_export
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.spikes.timeline import Timeline
from vrtspike.spikes.voxels import bin_steps
from vrtspike.storage.folder import Folder

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), np.uint8)
SPIKES = np.random.default_rng(1).random((5, 10, 16, 24)) < 0.3


@pytest.fixture(scope="module")
def config(repository: Path) -> Config:
    return load_config(repository / "configs" / "debug.yaml", ["data.voxels=log1p"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, config: Config) -> Path:
    """Return the run folder of a model whose weights are as random as they begin."""
    run, torch_state = tmp_path_factory.mktemp("runs") / "fused", torch.get_rng_state()
    torch.manual_seed(0)
    weights = {
        name: value + 0.01 * torch.randn_like(value) if value.is_floating_point() else value
        for name, value in build_model(config.model).state_dict().items()
    }
    torch.set_rng_state(torch_state)
    (run / "export").mkdir(parents=True)
    (run / "config.yaml").write_text(dump_config(config))
    write_export(
        Folder.at(run), "export/model.safetensors", weights, export_metadata(config, step=3)
    )
    return run


def voxels_of(mode: str, bins: int, first: int, last: int) -> torch.Tensor:
    counts = np.stack([voxelize(s, bins, start=first, stop=last) for s in SPIKES])
    steps = bin_steps(last - first, bins)
    return torch.from_numpy(normalize_voxels(counts, steps, 2.0, mode)).half()


def whole(restorer: Restorer, voxels: torch.Tensor | None, **tiling: int) -> NDArray[np.uint8]:
    frames = rearrange(torch.from_numpy(FRAMES), "t h w c -> t c h w")
    return rearrange(
        to_uint8(restore(restorer.model, frames, voxels, **tiling)), "t c h w -> t h w c"
    ).numpy()


def test_three_lines_restore_what_is_in_memory(run: Path, config: Config) -> None:
    restorer = Restorer.load(run)
    restored = restorer(FRAMES, SPIKES, threshold=2.0)
    assert (restored.dtype, restored.shape) == (np.uint8, FRAMES.shape)
    assert restored.flags.c_contiguous and (restored != FRAMES).mean() > 0.2
    expected = whole(restorer, voxels_of("log1p", config.model.spike.bins, 0, 10))
    np.testing.assert_array_equal(restored, expected)


@pytest.mark.usefixtures("packaged_weights")
def test_packaged_weights_are_taken_by_name(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "small")
    steps = np.repeat(SPIKES, 2, axis=1)
    by_name = Restorer.load("small")
    assert by_name.settings is not None and by_name.settings.channels == 16
    assert (by_name(FRAMES, steps, threshold=2.0) != FRAMES).mean() > 0.2
    for place in ("./small", Path("small")):
        restorer = Restorer.load(place)
        assert restorer.settings is not None and restorer.settings.channels == 8
    assert Restorer.load("small-no-spike").spikes is None
    with pytest.raises(
        CheckpointError, match=r"\[large\].*packaged weights: small, small-no-spike$"
    ):
        Restorer.load("large")
    with pytest.raises(CheckpointError, match=r"restore nothing.*init_weights.*small-no-spike$"):
        Restorer.load("flow")


def test_an_export_alone_is_the_run(run: Path, config: Config, tmp_path: Path) -> None:
    folder = Restorer.load(run)
    (tmp_path / "alone.safetensors").write_bytes((run / "export/model.safetensors").read_bytes())
    alone = Restorer.load(tmp_path / "alone.safetensors")
    for restorer in (folder, alone):
        assert restorer.spikes == SpikeRepresentation(config.model.spike.bins, voxels="log1p")
        assert restorer.settings == config.model and not restorer.model.training
    for name, value in folder.model.state_dict().items():
        assert torch.equal(value, alone.model.state_dict()[name]), name


def test_weights_that_say_nothing_need_a_configuration(run: Path, tmp_path: Path) -> None:
    save_file(load_file(run / "export/model.safetensors"), tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match=r"what model.*bare\.safetensors.*--config"):
        Restorer.load(tmp_path / "bare.safetensors")
    restorer = Restorer.load(tmp_path / "bare.safetensors", config=run / "config.yaml")
    np.testing.assert_array_equal(
        restorer(FRAMES, SPIKES, threshold=2.0), Restorer.load(run)(FRAMES, SPIKES, threshold=2.0)
    )


def test_a_model_without_spikes_takes_frames_alone(repository: Path, tmp_path: Path) -> None:
    config = load_config(repository / "configs" / "debug.yaml", ["model.fusion=none"])
    save_file(build_model(config.model).state_dict(), tmp_path / "plain.safetensors")
    (tmp_path / "plain.yaml").write_text(dump_config(config))
    restorer = Restorer.load(tmp_path / "plain.safetensors", config=tmp_path / "plain.yaml")
    assert restorer.spikes is None
    np.testing.assert_array_equal(restorer(FRAMES), whole(restorer, None))


@pytest.mark.parametrize("exposure", [None, (2, 9)])
def test_the_exposure_and_tiling_are_those_of_restore(exposure: tuple[int, int] | None) -> None:
    tiling = {"tile": 16, "overlap": 4, "tile_frames": 3, "overlap_frames": 1}
    restorer = Restorer(Placed(), SpikeRepresentation(BINS))
    restored = restorer(FRAMES, SPIKES, threshold=2.0, exposure=exposure, **tiling)
    expected = whole(restorer, voxels_of("rate", BINS, *(exposure or (0, 10))), **tiling)
    np.testing.assert_array_equal(restored, expected)


class Seen(nn.Module):
    """Return the frames, and keep what was given beside them."""

    def forward(self, blurred: Tensor, voxels: Tensor) -> Tensor:
        self.voxels = voxels[0]
        return blurred


@pytest.mark.parametrize(
    ("exposure", "instant", "timeline"),
    [
        (None, None, Timeline(10, (0, 10), 5)),
        ((2, 9), None, Timeline(10, (2, 9), 5)),
        (None, 0, Timeline(10, (0, 10), 0)),
        ((2, 9), 9, Timeline(10, (2, 9), 9)),
    ],
)
def test_any_instant_of_the_exposure_can_be_asked_for(
    exposure: tuple[int, int] | None, instant: int | None, timeline: Timeline
) -> None:
    represent = SpikeRepresentation(3, around="target", windows=(0.3, 1.4), interval=True)
    model = Seen()
    Restorer(model, represent)(FRAMES, SPIKES, threshold=2.0, exposure=exposure, instant=instant)
    expected = represent(SPIKES, timeline, 2.0)
    np.testing.assert_array_equal(model.voxels, expected.astype(np.float32))


def test_an_instant_outside_the_exposure_is_refused() -> None:
    restorer = Restorer(Seen(), SpikeRepresentation(3))
    with pytest.raises(ConfigError, match=r"target step lies outside.*got 1.*expected 2 to 9"):
        restorer(FRAMES, SPIKES, threshold=2.0, exposure=(2, 9), instant=1)


def test_a_guided_model_gives_its_first_guess_as_a_model(config: Config) -> None:
    guided = change(config, {"model.guess": {"channels": 8, "blocks": 1}, "model.patch": 2}).model
    torch.manual_seed(0)
    model = build_model(guided).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "conv_last" in name:
                parameter.add_(0.02 * torch.randn_like(parameter))
    restorer = Restorer(model, SpikeRepresentation.of(guided), guided)
    guess = restorer.first_guess
    assert guess is not None and (restorer.unit, guess.unit) == (16, 2)
    assert guess.settings == guided.model_copy(update={"trunk": False})
    assert guess.first_guess is None and Restorer(Placed()).first_guess is None
    restored, guessed = (r(FRAMES, SPIKES, threshold=2.0) for r in (restorer, guess))
    frames = rearrange(torch.from_numpy(FRAMES), "t h w c -> 1 t c h w").float() / 255
    assert restorer.spikes is not None
    voxels = restorer.spikes(SPIKES, Timeline(10, (0, 10), 5), 2.0).astype(np.float32)
    with torch.no_grad():
        of_model = model(frames, torch.from_numpy(voxels)[None], True)[1][0]
    inside = (slice(None), slice(0, 8), slice(0, 8))  # borders are padded to another unit
    expected = rearrange(to_uint8(of_model), "t c h w -> t h w c").numpy()
    np.testing.assert_array_equal(guessed[inside], expected[inside])
    assert (guessed != FRAMES).any() and (restored != guessed).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r(FRAMES), "got no spikes"),
        (lambda r: r(FRAMES, SPIKES), "camera's threshold"),
        (lambda r: r(FRAMES, SPIKES[:4], threshold=2.0), "got 4 frames.*expected spikes of 5"),
    ],
)
def test_spikes_that_are_missing_or_too_few_are_refused(
    call: Callable[[Restorer], object], message: str
) -> None:
    with pytest.raises(DataFormatError, match=message):
        call(Restorer(Placed(), SpikeRepresentation(BINS)))


def test_weights_of_another_model_are_refused(run: Path, tmp_path: Path, repository: Path) -> None:
    other = tmp_path / "other.yaml"
    config = load_config(repository / "configs" / "debug.yaml", ["model.spike.bins=5"])
    other.write_text(dump_config(config))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        Restorer.load(run, config=other)


def test_what_is_no_run_is_one_line(run: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    half.mkdir()
    (half / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    spoilt = tmp_path / "spoilt.safetensors"
    spoilt.write_bytes(b"spoilt")
    strange = tmp_path / "strange.safetensors"
    save_file({"a": torch.zeros(1)}, strange, metadata={"config": "lr: 1"})
    for place, message in [
        (tmp_path / "none", "no such run folder or weights"),
        (half, r"no export/model\.safetensors.*let the run finish"),
        (spoilt, "what model its weights are of"),
        (strange, "not one of this version"),
    ]:
        with pytest.raises(VrtSpikeError, match=message) as caught:
            Restorer.load(place)
        assert str(place) in str(caught.value) and "\n" not in str(caught.value)
