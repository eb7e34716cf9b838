"""The training loss: a weighted sum of differences between restored and sharp frames.

In: frames `(b, t, 3, h, w)` in [0, 1]. Out: a scalar. It is computed in float32 also under
autocast, because eps^2 of Charbonnier, 1e-6, vanishes in half precision.

    charbonnier   mean sqrt(d^2 + eps^2)      (Charbonnier et al. 1994)
    l1, l2        mean |d|, mean d^2
    ssim          1 - SSIM
    vgg           L1 of VGG16 relu3_3 features
    lpips         LPIPS (AlexNet)
    guess         charbonnier of the first guess, for models with one
"""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.errors import ConfigError
from vrtspike.metrics.image import structural_similarity
from vrtspike.metrics.perceptual import LPIPS, PerceptualLoss


def charbonnier(
    restored: Float[Tensor, "..."], sharp: Float[Tensor, "..."], eps: float = 1e-3
) -> Float[Tensor, ""]:
    """Return the mean of sqrt(difference^2 + eps^2)."""
    return ((restored - sharp).square() + eps**2).sqrt().mean()


def l1(restored: Float[Tensor, "..."], sharp: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Return the mean absolute difference."""
    return (restored - sharp).abs().mean()


def l2(restored: Float[Tensor, "..."], sharp: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Return the mean squared difference."""
    return (restored - sharp).square().mean()


def dissimilarity(
    restored: Float[Tensor, "*n c h w"], sharp: Float[Tensor, "*n c h w"]
) -> Float[Tensor, ""]:
    """Return 1 - SSIM, the mean over all frames."""
    return 1 - structural_similarity(restored, sharp).mean()


class LossTerms(nn.Module):
    """The weighted sum of the terms above; a term of weight 0 is not computed.

    Raise ConfigError if no term other than the guess has a weight. VGG16 and AlexNet are loaded
    only if their term has a weight.
    """

    def __init__(
        self,
        *,
        charbonnier: float = 1.0,
        charbonnier_eps: float = 1e-3,
        l1: float = 0.0,
        l2: float = 0.0,
        ssim: float = 0.0,
        vgg: float = 0.0,
        lpips: float = 0.0,
        guess: float = 0.0,
        weights_dir: Path | None = None,
    ) -> None:
        super().__init__()
        named = {
            "charbonnier": charbonnier,
            "l1": l1,
            "l2": l2,
            "ssim": ssim,
            "vgg": vgg,
            "lpips": lpips,
            "guess": guess,
        }
        self.weights = {name: weight for name, weight in named.items() if weight}
        if not self.weights.keys() - {"guess"}:
            raise ConfigError(
                "no loss term has a weight",
                where="loss",
                expected="at least one weight above 0",
                fix="set loss.charbonnier=1",
            )
        self.charbonnier_eps = charbonnier_eps
        self.vgg = PerceptualLoss(weights_dir) if vgg else None
        self.lpips = LPIPS(weights_dir) if lpips else None

    def forward(
        self,
        restored: Float[Tensor, "b t 3 h w"]
        | tuple[Float[Tensor, "b t 3 h w"], Float[Tensor, "b t 3 h w"]],
        sharp: Float[Tensor, "b t 3 h w"],
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the weighted sum, and each term without its weight.

        For the guess term, `restored` is a pair `(restored, guess)`.
        """
        restored, guess = restored if isinstance(restored, tuple) else (restored, restored)
        with torch.autocast(restored.device.type, enabled=False):
            restored_frames, guess_frames, sharp_frames = (
                rearrange(x.float(), "b t c h w -> (b t) c h w") for x in (restored, guess, sharp)
            )
            terms = {
                name: self._term(
                    name, guess_frames if name == "guess" else restored_frames, sharp_frames
                )
                for name in self.weights
            }
        total = torch.stack([weight * terms[name] for name, weight in self.weights.items()]).sum()
        return total, terms

    def _term(self, name: str, restored: Tensor, sharp: Tensor) -> Tensor:
        """Compute one term over frames `(n, 3, h, w)`."""
        match name:
            case "charbonnier" | "guess":
                return charbonnier(restored, sharp, self.charbonnier_eps)
            case "l1":
                return l1(restored, sharp)
            case "l2":
                return l2(restored, sharp)
            case "ssim":
                return dissimilarity(restored, sharp)
            case "vgg":
                assert self.vgg is not None
                return _mean(self.vgg, restored, sharp)
            case _:
                assert self.lpips is not None
                return _mean(self.lpips, restored, sharp)


def _mean(distance: nn.Module, restored: Tensor, sharp: Tensor) -> Tensor:
    """Return the mean distance over frames."""
    distances: Tensor = distance(restored, sharp)
    return distances.mean()
