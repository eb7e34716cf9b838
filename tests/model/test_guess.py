"""The first guess: it starts as its input, sees one frame at a time, and all of it learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vrtspike.config.model import GuessSettings, ModelSettings
from vrtspike.errors import DataFormatError
from vrtspike.model import build_model
from vrtspike.model.guess import FirstGuess, GuessAlone


def alone(settings: ModelSettings, **changes: object) -> nn.Module:
    """Build a guess with nothing behind it."""
    guess = GuessSettings(channels=8, blocks=2)
    return build_model(settings.model_copy(update={"guess": guess, "trunk": False} | changes))


def spoilt(model: nn.Module) -> nn.Module:
    """Give every weight a random value, so that nothing starts at zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("size", [(32, 40), (31, 37)])
def test_it_starts_as_its_input(
    tiny: ModelSettings, clip: tuple[Tensor, Tensor], size: tuple[int, int]
) -> None:
    blurred, voxels = (x[..., : size[0], : size[1]] for x in clip)
    assert torch.equal(alone(tiny)(blurred, voxels), blurred)
    assert torch.equal(alone(tiny, fusion="none")(blurred), blurred)


def test_all_weights_learn_after_one_step(tiny: ModelSettings, clip: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    model, target = alone(tiny), clip[0].flip(-1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (model(*clip) - target).square().mean().backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_no_frame_sees_another(tiny: ModelSettings, clip: tuple[Tensor, Tensor]) -> None:
    model, (blurred, voxels) = spoilt(alone(tiny)), clip
    whole = model(blurred, voxels)
    assert (whole - blurred).abs().mean() > 0.01
    for index in range(3):
        one = model(blurred[:, index : index + 1], voxels[:, index : index + 1])
        torch.testing.assert_close(one, whole[:, index : index + 1])


def test_spikes_change_it_and_without_them_it_takes_none(
    tiny: ModelSettings, clip: tuple[Tensor, Tensor]
) -> None:
    model, (blurred, voxels) = spoilt(alone(tiny)), clip
    assert not torch.allclose(model(blurred, voxels), model(blurred, voxels.flip(-1)))
    with pytest.raises(DataFormatError, match="got none"):
        model(blurred)
    plain = spoilt(alone(tiny, fusion="none"))
    assert torch.equal(plain(blurred, voxels), plain(blurred))


def test_borders_of_an_odd_size_are_repeated(
    tiny: ModelSettings, clip: tuple[Tensor, Tensor]
) -> None:
    model = spoilt(alone(tiny))
    blurred, voxels = (x[..., :31, :37] for x in clip)
    repeated = (
        torch.cat((x, x[..., -1:, :]), dim=-2)
        for x in (torch.cat((x, x[..., -1:]), dim=-1) for x in (blurred, voxels))
    )
    torch.testing.assert_close(model(blurred, voxels), model(*repeated)[..., :31, :37])


def test_features_are_those_that_the_guess_is_made_of() -> None:
    guess = FirstGuess(4, channels=8, blocks=1)
    spoilt(guess)
    frames, spikes = torch.rand(2, 3, 3, 8, 12), torch.rand(2, 3, 4, 8, 12)
    found, features = guess(frames, spikes)
    assert features.shape == (6, 8, 4, 6)
    residual = nn.functional.pixel_shuffle(guess.conv_last(features), 2)
    torch.testing.assert_close(found, frames + residual.unflatten(0, (2, 3)))


def test_one_frame_is_enough_and_its_unit_is_two(tiny: ModelSettings) -> None:
    model = alone(tiny)
    assert isinstance(model, GuessAlone) and model.unit == 2
    assert model(torch.rand(1, 1, 3, 8, 8), torch.rand(1, 1, 4, 8, 8)).shape == (1, 1, 3, 8, 8)
