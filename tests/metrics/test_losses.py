"""Loss terms are the formulas they name, and their weighted sum is what is minimised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from vrtspike.errors import ConfigError, ResourceError
from vrtspike.metrics.losses import LossTerms, charbonnier, dissimilarity, l1, l2


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sharp = torch.rand(2, 3, 3, 32, 40, generator=generator)
    restored = (sharp + 0.1 * torch.randn(sharp.shape, generator=generator)).requires_grad_()
    return restored, sharp


def test_charbonnier_is_quadratic_near_zero_and_linear_far_away() -> None:
    zero = torch.zeros(1)
    assert charbonnier(zero, zero, 1e-3).item() == pytest.approx(1e-3)
    assert charbonnier(torch.ones(1), zero, 1e-3).item() == pytest.approx(1.0, abs=1e-6)
    small = charbonnier(torch.full((1,), 1e-4), zero, 1e-3).item()
    assert small == pytest.approx(1e-3 + 1e-8 / 2e-3, rel=1e-4)


def test_sum_is_weighted_and_terms_are_not(pair: tuple[Tensor, Tensor]) -> None:
    restored, sharp = pair
    total, terms = LossTerms(charbonnier=2.0, l1=0.5, l2=3.0, ssim=0.25)(restored, sharp)
    frames = (x.flatten(0, 1) for x in (restored, sharp))
    expected = {
        "charbonnier": charbonnier(restored, sharp),
        "l1": l1(restored, sharp),
        "l2": l2(restored, sharp),
        "ssim": dissimilarity(*frames),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-6)
    by_hand = sum(
        weight * expected[name].item()
        for name, weight in (("charbonnier", 2.0), ("l1", 0.5), ("l2", 3.0), ("ssim", 0.25))
    )
    assert total.item() == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("name", ["charbonnier", "l1", "l2", "ssim", "vgg", "lpips"])
def test_every_term_falls_to_its_least_at_the_sharp_frames_and_has_a_gradient(
    name: str, pair: tuple[Tensor, Tensor], request: pytest.FixtureRequest
) -> None:
    folder: Path | None = None
    if name in ("vgg", "lpips"):
        folder = request.getfixturevalue("shared") / "weights"
    weights = {"charbonnier": 0.0} | {name: 1.0}
    terms = LossTerms(**weights, weights_dir=folder)
    restored, sharp = pair
    total, _ = terms(restored, sharp)
    total.backward()
    assert restored.grad is not None
    assert restored.grad.isfinite().all()
    assert restored.grad.abs().max() > 0
    step = 0.02 * restored.grad / restored.grad.abs().max()
    nearer, _ = terms(restored.detach() - step, sharp)
    best, _ = terms(sharp, sharp)
    assert best.item() < nearer.item() < total.item()


def test_bfloat16_frames_under_autocast_are_compared_in_float32(
    pair: tuple[Tensor, Tensor],
) -> None:
    restored, sharp = pair
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = LossTerms(ssim=1.0)(restored.bfloat16(), sharp)
    exact, _ = LossTerms(ssim=1.0)(restored.bfloat16().float(), sharp)
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(exact.item(), rel=1e-6)


def test_feature_networks_do_not_learn(shared: Path, pair: tuple[Tensor, Tensor]) -> None:
    terms = LossTerms(vgg=0.1, lpips=0.1, weights_dir=shared / "weights")
    assert not any(parameter.requires_grad for parameter in terms.parameters())


def test_vgg_is_the_network_that_torchvision_means(shared: Path) -> None:
    from torchvision.models import vgg16

    from vrtspike.metrics.perceptual import PerceptualLoss

    with torch.device("meta"):
        network = vgg16(weights=None).features
    state = torch.load(shared / "weights" / "vgg16_features.pt", weights_only=True)
    network.load_state_dict(
        {name.removeprefix("features."): value for name, value in state.items()}, assign=True
    )
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 2, 3, 32, 32, generator=generator)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        relu3_3 = [network[:16]((x - mean) / std) for x in (a, b)]
        found = PerceptualLoss(shared / "weights")(a, b)
    expected = (relu3_3[0] - relu3_3[1]).abs().mean(dim=(1, 2, 3))
    assert torch.allclose(found, expected, rtol=1e-4)


def test_a_guess_beside_the_frames_has_a_term_of_its_own(pair: tuple[Tensor, Tensor]) -> None:
    restored, sharp = pair
    guess = (sharp + 0.3).requires_grad_()
    total, terms = LossTerms(charbonnier=2.0, l1=1.0, guess=0.5)((restored, guess), sharp)
    assert terms.keys() == {"charbonnier", "l1", "guess"}
    assert terms["guess"].item() == pytest.approx(charbonnier(guess, sharp).item(), rel=1e-6)
    alone, _ = LossTerms(charbonnier=2.0, l1=1.0)(restored, sharp)
    assert total.item() == pytest.approx(alone.item() + 0.5 * terms["guess"].item(), rel=1e-6)
    total.backward()
    for frames, weight in ((restored, None), (guess, 0.5)):
        assert frames.grad is not None and frames.grad.abs().max() > 0
        if weight is not None:
            (expected,) = torch.autograd.grad(charbonnier(guess, sharp), guess)
            torch.testing.assert_close(frames.grad, weight * expected)


def test_a_guess_without_a_weight_is_not_compared(pair: tuple[Tensor, Tensor]) -> None:
    restored, sharp = pair
    total, terms = LossTerms(charbonnier=1.0)((restored, restored + 1), sharp)
    assert terms.keys() == {"charbonnier"}
    assert total.item() == pytest.approx(charbonnier(restored, sharp).item(), rel=1e-6)


def test_missing_weights_and_an_empty_sum_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"vgg16_features\.pt.*loss\.vgg"):
        LossTerms(vgg=0.1, weights_dir=tmp_path)
    with pytest.raises(ConfigError, match="loss"):
        LossTerms(charbonnier=0.0)
    with pytest.raises(ConfigError, match="loss"):
        LossTerms(charbonnier=0.0, guess=1.0)
