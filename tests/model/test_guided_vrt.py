"""VRT behind a first guess: every fusion, every patch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from vrtspike.config.model import GuessSettings, ModelSettings
from vrtspike.errors import DataFormatError
from vrtspike.model import build_model
from vrtspike.model.guided_vrt import GuidedVRT
from vrtspike.model.temporal import resample_time

FUSIONS = ("temporal", "window", "concat", "early", "none")
PATCHES = (1, 2, 4)


@pytest.fixture
def guided(tiny: ModelSettings) -> ModelSettings:
    """Return the settings of a small model with a guess."""
    spike = tiny.spike.model_copy(update={"window": 4})
    changes = {"guess": GuessSettings(channels=8, blocks=1), "spike": spike, "blocks": 1}
    return tiny.model_copy(update=changes | {"refine_blocks": 1})


@pytest.fixture
def video() -> tuple[Tensor, Tensor]:
    """Blurred frames (1, 2, 3, 32, 32) and voxels (1, 2, 4, 32, 32), smooth as pictures are."""
    coarse = torch.rand(2, 7, 8, 8, generator=torch.Generator().manual_seed(1))
    fine = F.interpolate(coarse, (32, 32), mode="bicubic").clamp(0, 1)[None]
    return fine[:, :, :3], fine[:, :, 3:]


def build(settings: ModelSettings, **changes: Any) -> GuidedVRT:
    torch.manual_seed(0)
    model = build_model(settings.model_copy(update=changes)).eval()
    assert isinstance(model, GuidedVRT)
    return model


def changed(model: nn.Module, *names: str) -> nn.Module:
    """Let last convolutions start at other values than zero."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(names):
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


GUESS = ("guess.conv_last",)
BOTH = ("guess.conv_last", "trunk.conv_last", "trunk.vrt.conv_last")


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_it_starts_as_its_guess_and_that_as_the_frames(
    fusion: str, patch: int, guided: ModelSettings, video: tuple[Tensor, Tensor]
) -> None:
    model = build(guided, fusion=fusion, patch=patch)
    with torch.no_grad():
        assert torch.equal(model(*video), video[0])
        changed(model, *GUESS)
        restored, guess = model(*video, True)
        assert torch.equal(restored, guess)
        assert (guess - video[0]).abs().mean() > 0.01
        changed(model, *BOTH)
        restored, other = model(*video, with_guess=True)
        assert torch.equal(model(*video), restored)
    assert torch.equal(other, guess), "the transformer does not change what it is given"
    assert (restored - guess).abs().mean() > 0.001


@pytest.mark.parametrize("patch", PATCHES)
def test_the_guess_is_that_of_a_guess_alone(
    patch: int, guided: ModelSettings, video: tuple[Tensor, Tensor]
) -> None:
    model = build(guided, patch=patch)
    changed(model, *GUESS)
    alone = build_model(guided.model_copy(update={"trunk": False})).eval()
    alone.load_state_dict({k: v for k, v in model.state_dict().items() if k.startswith("guess.")})
    blurred, voxels = (x[..., :26, :22] for x in video)
    with torch.no_grad():
        guess = model(blurred, voxels, True)[1]
        found = alone(blurred, voxels)
    # Its convolutions see repeated borders where the other's see nothing.
    torch.testing.assert_close(found[..., :16, :12], guess[..., :16, :12])


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_everything_learns(
    fusion: str, patch: int, guided: ModelSettings, video: tuple[Tensor, Tensor]
) -> None:
    """After two steps, for two last convolutions start at zero, one behind the other."""
    model = build(guided, fusion=fusion, patch=patch, flow_from="guess").train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    sharp = video[0].flip(-1)
    for _ in range(3):
        optimizer.zero_grad()
        restored, guess = model(*video, True)
        ((restored - sharp).square().mean() + (guess - sharp).square().mean()).backward()
        optimizer.step()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]
    # Of the flow network a level may be finer than the tokens, or dark at the size of a few pixels.
    assert all("spynet.basic_module." in name for name in without), without
    assert len(without) < sum(
        "spynet.basic_module." in name for name, _ in model.named_parameters()
    )


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("fusion", ["temporal", "early", "none"])
def test_sizes_that_the_unit_does_not_divide_are_repeated_at_the_border(
    fusion: str, patch: int, guided: ModelSettings, video: tuple[Tensor, Tensor]
) -> None:
    model = build(guided, fusion=fusion, patch=patch)
    changed(model, *BOTH)
    assert model.unit == 8 * patch
    blurred, voxels = (x[..., :19, :27] for x in video)
    high, wide = (-19 % model.unit, -27 % model.unit)
    padded = [
        F.pad(x.flatten(0, 1), (0, wide, 0, high), mode="replicate").unflatten(0, (1, 2))
        for x in (blurred, voxels)
    ]
    with torch.no_grad():
        found, whole = model(blurred, voxels, True), model(*padded, True)
    for part, padded_part in zip(found, whole, strict=True):
        assert part.shape == blurred.shape
        torch.testing.assert_close(part, padded_part[..., :19, :27])


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("fusion", ["temporal", "window", "concat", "early"])
def test_a_coarser_sensor_sees_the_same_field(
    fusion: str, patch: int, guided: ModelSettings, video: tuple[Tensor, Tensor]
) -> None:
    model = changed(build(guided, fusion=fusion, patch=patch), *BOTH)
    levels = torch.rand(1, 2, 4, 1, 1, generator=torch.Generator().manual_seed(4))
    fine, coarse = (levels.expand(1, 2, 4, side, side) for side in (32, 16))
    with torch.no_grad():
        torch.testing.assert_close(model(video[0], fine), model(video[0], coarse))


@pytest.mark.parametrize("instants", [1, 3])
def test_spikes_of_other_instants_are_interpolated(
    instants: int, guided: ModelSettings, video: tuple[Tensor, Tensor]
) -> None:
    model = changed(build(guided, patch=2), *BOTH)
    voxels = torch.rand(1, instants, 4, 32, 32, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        found = model(video[0], voxels)
        torch.testing.assert_close(found, model(video[0], resample_time(voxels, 2)))


@pytest.mark.parametrize("fusion", ["temporal", "concat", "early"])
def test_missing_or_wrong_voxels_are_refused(
    fusion: str, guided: ModelSettings, video: tuple[Tensor, Tensor]
) -> None:
    model = build(guided, fusion=fusion, patch=2)
    with pytest.raises(DataFormatError, match="got none"):
        model(video[0])
    with pytest.raises(DataFormatError, match="k=4"):
        model(video[0], video[1][:, :, :3])


@pytest.mark.parametrize("patch", PATCHES)
def test_flow_is_estimated_on_what_is_asked_for(
    patch: int, guided: ModelSettings, video: tuple[Tensor, Tensor]
) -> None:
    seen: dict[str, Tensor] = {}
    for kind in ("frames", "guess"):
        model = build(guided, patch=patch, flow_from=kind)
        changed(model, *GUESS)
        model.trunk.vrt.spynet.register_forward_pre_hook(
            lambda _, given, kind=kind: seen.__setitem__(kind, given[0])
        )
        guess = model(*video, True)[1].detach()
    for kind, pictures in (("frames", video[0]), ("guess", guess)):
        assert not seen[kind].requires_grad, "the guess does not learn what suits the flow"
        first, second = (F.avg_pool2d(pictures[:, index], patch) for index in range(2))
        torch.testing.assert_close(seen[kind], torch.cat((first, second)))
    assert not torch.allclose(seen["frames"], seen["guess"])


def test_features_of_the_guess_reach_the_transformer(
    guided: ModelSettings, video: tuple[Tensor, Tensor]
) -> None:
    model = changed(build(guided, patch=2), *BOTH)
    with torch.no_grad():
        before = model(*video)
        model.entry.linear.weight.zero_()
        model.entry.linear.bias.zero_()
        assert not torch.allclose(model(*video), before, atol=1e-4)


@pytest.mark.parametrize("patch", PATCHES)
def test_a_patch_of_features_lies_where_its_pixels_are(patch: int, guided: ModelSettings) -> None:
    """A feature of the guess in one corner changes the first feature there and nowhere else."""
    model = build(guided, patch=patch)
    features = torch.zeros(1, 1, 8, 8, 8)
    features[..., 4:6, 6:8] = 1  # pixels 8 to 12, 12 to 16
    with torch.no_grad():
        found = model.entry(features) - model.entry(torch.zeros_like(features))
    assert found.shape == (1, 1, 16 // patch, 16 // patch, 8)
    reached = found.abs().amax(dim=(0, 1, 4)) > 0
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[8:12, 12:16] = True
    assert torch.equal(reached, expected[::patch, ::patch])


def test_a_model_needs_what_its_settings_build_on() -> None:
    with pytest.raises(ValidationError, match="trunk false leaves nothing"):
        ModelSettings(trunk=False)
    with pytest.raises(ValidationError, match="flow_from guess wants a guess"):
        ModelSettings(flow_from="guess")
