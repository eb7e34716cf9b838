"""The first guess: a small convolutional network that restores frames independently.

In: blurred frames `(b, t, 3, h, w)` in [0, 1], h and w even, and optionally spike channels
`(b, t, c, h, w)` at the same pixels (`vrtspike.spikes.representation`). Out: a first restored video
`(b, t, 3, h, w)`, and the features `(b t, f, h/2, w/2)` of its last hidden layer.

    x     = conv(unshuffle2([frames, spikes]))
    x     = x + conv(relu(conv(x)))                 for each block
    guess = frames + shuffle2(conv(x))              the last convolution starts at zero

No information passes between frames. The transformer after it uses the neighbouring frames.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.model.grid import beside_frames, crop

SHUFFLE = 2
"""Side in pixels of the squares that become channels."""
RGB = 3


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return x + conv(relu(conv(x)))."""
        out: Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return out


class FirstGuess(nn.Module):
    """A residual network that restores each frame from that frame and its spikes."""

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
        """Return the guess, and the features of each of the n = b t frames.

        Neither is a view, because a sharded module must not return a view.
        """
        inputs = frames if spikes is None else torch.cat((frames, spikes.to(frames.dtype)), dim=2)
        x = F.pixel_unshuffle(rearrange(inputs, "b t c h w -> (b t) c h w"), SHUFFLE)
        # On a CPU, convolutions are up to a third faster in the channels-last layout.
        x = self.conv_first(x.contiguous(memory_format=torch.channels_last))
        x = self.blocks(x)
        residual = F.pixel_shuffle(self.conv_last(x), SHUFFLE)
        residual = rearrange(residual, "(b t) c h w -> b t c h w", t=frames.shape[1])
        return frames + residual.to(frames.dtype), x


class GuessAlone(nn.Module):
    """A model that consists of the first guess, without a transformer."""

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
        """Restore sharp frames from blurred frames and, if the guess takes them, spikes."""
        frames, spikes = beside_frames(
            blurred, voxels, channels=self.guess.spike_channels, unit=self.unit
        )
        guess: Tensor = self.guess(frames, spikes)[0]
        return crop(guess, *blurred.shape[-2:])
