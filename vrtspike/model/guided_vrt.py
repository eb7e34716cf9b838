"""A VRT that refines the first guess of a small convolutional network.

In: blurred frames `(b, t, 3, h, w)` in [0, 1] and optionally spike channels `(b, s, c, hs, ws)`
over the same span of time and space. Out: restored frames `(b, t, 3, h, w)`, and on request the
guess.

The transformer takes the guess as input instead of the blurred frames, and adds its output to the
guess. The features of the guess are added to the first feature of the transformer. The last
convolution of the transformer starts at zero, so at first the model returns the guess. Optical flow
is estimated on the guess, where moving objects are sharp, or on the blurred frames.
"""

from __future__ import annotations

from typing import Literal, overload

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.model.early_fusion import EarlyFusionVRT
from vrtspike.model.grid import beside_frames, crop
from vrtspike.model.guess import SHUFFLE, FirstGuess
from vrtspike.model.spike_vrt import SpikeVRT
from vrtspike.model.vrt import VRT


class GuideEntry(nn.Module):
    """Project the features of the guess to the resolution and channels of VRT's first feature."""

    def __init__(self, features: int, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        finer, coarser = max(SHUFFLE // patch, 1), max(patch // SHUFFLE, 1)
        self.down, self.up = coarser, finer
        self.linear = nn.Linear(features * coarser**2, channels * finer**2)

    def forward(self, features: Float[Tensor, "b t f h2 w2"]) -> Float[Tensor, "b t hp wp c"]:
        """Return the term that VRT adds to its first feature."""
        x = rearrange(features, "b t c (h p) (w q) -> b t h w (c p q)", p=self.down, q=self.down)
        x = self.linear(x)
        grown: Tensor = rearrange(x, "b t h w (c p q) -> b t (h p) (w q) c", p=self.up, q=self.up)
        return grown


class GuidedVRT(nn.Module):
    """A first guess, and the transformer that refines it."""

    def __init__(
        self,
        guess: FirstGuess,
        trunk: VRT | SpikeVRT | EarlyFusionVRT,
        *,
        channels: int,
        flow_from: Literal["guess", "frames"],
    ) -> None:
        super().__init__()
        self.guess, self.trunk, self.flow_from = guess, trunk, flow_from
        self.unit = trunk.unit
        self.entry = GuideEntry(guess.channels, channels, trunk.patch)

    def blocks(self) -> list[nn.Module]:
        """Return the parts that are compiled and sharded one by one."""
        return [self.guess, *self.trunk.blocks()]

    @overload
    def forward(self, blurred: Tensor, voxels: Tensor | None = ...) -> Tensor: ...
    @overload
    def forward(
        self, blurred: Tensor, voxels: Tensor | None, with_guess: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...
    def forward(
        self,
        blurred: Float[Tensor, "b t 3 h w"],
        voxels: Float[Tensor, "b s c hs ws"] | None = None,
        with_guess: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Restore sharp frames; with `with_guess` return `(restored, guess)`."""
        frames, spikes = beside_frames(
            blurred, voxels, channels=self.guess.spike_channels, unit=self.unit
        )
        guess, features = self.guess(frames, spikes)
        features = rearrange(features, "(b t) c h w -> b t c h w", t=frames.shape[1])
        restored = self.trunk(
            guess,
            spikes,
            start=self.entry(features),
            flow_frames=(guess if self.flow_from == "guess" else frames).detach(),
        )
        restored, guess = (crop(x, *blurred.shape[-2:]) for x in (restored, guess))
        return (restored, guess) if with_guess else restored
