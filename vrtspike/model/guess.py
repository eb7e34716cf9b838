"""The first guess: a small convolutional network at full resolution that restores frame by frame.

In: blurred frames `(b, t, 3, h, w)` in [0, 1], h and w even, and, with spikes, their channels
`(b, t, c, h, w)` on the same grid (`vrtspike.spikes.representation`). Out: a first restored video
`(b, t, 3, h, w)`, and the features `(b t, f, h/2, w/2)` that it was made from.

    x     = conv(unshuffle2([frames, spikes]))
    x     = x + conv(relu(conv(x)))                 for each block
    guess = frames + shuffle2(conv(x))              the last convolution starts at zero

No frame sees another one. What neighbouring frames can add is left to the transformer behind it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.model.grid import beside_frames, crop

SHUFFLE = 2
"""Side of the squares of pixels that become channels."""
RGB = 3


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Apply both convolutions and the skip."""
        out: Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return out


class FirstGuess(nn.Module):
    """A residual network on frames and spikes of one instant each."""

    def __init__(self, spike_channels: int, *, channels: int, blocks: int) -> None:
        super().__init__()
        area = SHUFFLE**2
        self.channels, self.spike_channels = channels, spike_channels
        self.conv_first = nn.Conv2d(area * (RGB + spike_channels), channels, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.conv_last = nn.Conv2d(channels, area * RGB, 3, padding=1)
        nn.init.zeros_(self.conv_last.weight)
        if self.conv_last.bias is not None:
            nn.init.zeros_(self.conv_last.bias)

    def forward(
        self,
        frames: Float[Tensor, "b t 3 h w"],
        spikes: Float[Tensor, "b t c h w"] | None = None,
    ) -> tuple[Float[Tensor, "b t 3 h w"], Float[Tensor, "n f h2 w2"]]:
        """Return the guess and, for each of the n = b t frames, its features.

        None of the two is a view: what a sharded module returns must not be one.
        """
        given = frames if spikes is None else torch.cat((frames, spikes.to(frames.dtype)), dim=2)
        x = F.pixel_unshuffle(rearrange(given, "b t c h w -> (b t) c h w"), SHUFFLE)
        # Convolutions on a CPU take channels that lie together up to a third faster.
        x = self.conv_first(x.contiguous(memory_format=torch.channels_last))
        x = self.blocks(x)
        residual = F.pixel_shuffle(self.conv_last(x), SHUFFLE)
        residual = rearrange(residual, "(b t) c h w -> b t c h w", t=frames.shape[1])
        return frames + residual.to(frames.dtype), x


class GuessAlone(nn.Module):
    """A model that is the first guess and nothing behind it."""

    unit = SHUFFLE

    def __init__(self, guess: FirstGuess) -> None:
        super().__init__()
        self.guess = guess

    def blocks(self) -> list[nn.Module]:
        """Return the parts that are compiled and sharded one by one."""
        return [self.guess]

    def forward(
        self,
        blurred: Float[Tensor, "b t 3 h w"],
        voxels: Float[Tensor, "b s c hs ws"] | None = None,
    ) -> Float[Tensor, "b t 3 h w"]:
        """Restore sharp frames."""
        frames, spikes = beside_frames(
            blurred, voxels, channels=self.guess.spike_channels, unit=self.unit
        )
        guess: Tensor = self.guess(frames, spikes)[0]
        return crop(guess, *blurred.shape[-2:])
