"""Settings of the model: VRT, its first guess and its spike branch.

Lengths in time are steps of the spike camera unless a name says frames, seconds or Hz; sizes are
pixels.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vrtspike.config.roles import COST, SPIKES
from vrtspike.config.section import Depth, Fraction, Positive, Ratio, Section, Width

Groups = Annotated[int, Field(ge=0, le=64)]


class SpikeBranchSettings(Section):
    """The spike encoder and its fusion into VRT."""

    bins: Width = 32
    """Voxel bins a frame (k)."""
    bins_around: Literal["exposure", "target"] = "exposure"
    """What the bins divide: the exposure, or as many steps centred on the target instant."""
    windows: tuple[Annotated[float, Field(gt=0, le=4)], ...] = ()
    """Images beside the bins: spike averages (TFP) over windows centred on the target instant.
    Their lengths as shares of a frame's steps; above 1 they reach into neighbouring frames."""
    exposure: bool = False
    """One more image: the spike average over the exposure."""
    interval: bool = False
    """One more image: the spike interval (TFI) at the target instant."""
    heads: Width = 4
    """Heads of attention over spikes (fusions `temporal` and `window`)."""
    mlp_ratio: Ratio = 2.0
    """Hidden width of the MLPs over the channels (fusions `temporal` and `window`)."""
    blocks: Depth = 2
    """Residual blocks of the encoder at each scale."""
    kernel: tuple[Depth, Depth, Depth] = (3, 3, 3)
    """Kernel of the encoder's convolutions in t, h and w."""
    temporal_strides: tuple[Depth, Depth, Depth] = (1, 1, 1)
    """Strides in t of the three steps to the encoder's coarser scales."""
    temporal_bias: bool = True
    """Learn one slope a head that favours spikes of the same instant."""
    window: Width = 8
    """Side of the windows of fusion `window`, in pixels of each scale."""
    zero_init_fusion: bool = False
    """Zero what spikes add to the frames, so that the fused model starts equal to plain VRT."""
    chunk_size: Annotated[Positive | None, COST] = None
    """Attention over spikes works on chunks of the picture: side of a square or number of rows, in
    pixels of each scale. Memory only: smaller chunks take less, and are computed again in the
    backward pass. Null: no chunks."""
    chunk_shape: Annotated[Literal["square", "rows"], COST] = "square"
    """Squares, or bands over the whole width."""
    max_batch_tokens: Annotated[Positive | None, COST] = None
    """Most tokens (batch x instants x pixels) of a chunk, which shrinks until they fit; a pixel, or
    one window, is always taken. Null: no limit."""

    @property
    def channels(self) -> int:
        """Return the channels that the model sees of a frame's spikes: bins and images."""
        return self.bins + len(self.windows) + self.exposure + self.interval


class GuessSettings(Section):
    """The first guess: a convolutional network at full resolution, which VRT refines."""

    channels: Width = 48
    """Width."""
    blocks: Depth = 8
    """Residual blocks of two convolutions."""


class ModelSettings(Section):
    """VRT and its spike branch; the defaults are the published deblurring model with spikes."""

    fusion: Annotated[Literal["temporal", "window", "concat", "early", "none"], SPIKES] = "temporal"
    """How spikes enter VRT. `temporal`: the feature after each of stages 1-4 attends to those of
    its pixel at all instants; `window`: to those of all pixels in a window, too; `concat`:
    concatenated with the feature before stages 1-4 attend; `early`: as a fourth channel of the
    input; `none`: no spikes, plain VRT. A first guess sees the spikes, too, but with `none`."""
    guess: GuessSettings | None = None
    """A first guess in the place of the blurred frames, as VRT's input and residual base; null:
    none, as published."""
    trunk: bool = True
    """Whether VRT follows; false: the first guess alone restores."""
    patch: Literal[1, 2, 4] = 1
    """Side of the squares of pixels that are one token of VRT."""
    flow_from: Literal["frames", "guess"] = "frames"
    """What optical flow is estimated on: the blurred frames, or the first guess."""
    channels: Width = 96
    """Width of stages 1 to 7."""
    refine_channels: Width = 120
    """Width of stage 8."""
    blocks: Depth = 8
    """Attention blocks of each of stages 1 to 7."""
    mutual_ratio: Fraction = 0.75
    """Share of those blocks that use mutual attention (the first ones)."""
    refine_blocks: Depth = 4
    """Attention blocks of each group of stage 8."""
    refine_groups: tuple[Groups, Groups] = (2, 2)
    """Groups of stage 8: those that attend over frames, then those inside one frame."""
    heads: Width = 6
    """Attention heads."""
    window: tuple[Width, Width, Width] = (6, 8, 8)
    """Attention window in t, h and w; mutual attention uses 2 frames of it."""
    mlp_ratio: Ratio = 2.0
    """Hidden width of the MLPs over the channels."""
    drop_path: Fraction = 0.2
    """Stochastic depth of the last block; earlier blocks less, linearly."""
    deformable_groups: Width = 16
    """Offset groups of the deformable alignment."""
    flow_channels: tuple[Width, Width, Width, Width] = (32, 64, 32, 16)
    """Widths inside each level of the flow network."""
    zero_init_output: bool = False
    """Zero the last convolution, so that training starts from the blurred frames."""
    zero_init_flow: bool = False
    """Zero the last convolution of each flow level: untrained, no motion beats noise."""
    checkpoint_attention: Annotated[bool, COST] = False
    """Recompute attention in the backward pass instead of keeping it."""
    checkpoint_mlp: Annotated[bool, COST] = True
    """Recompute the hidden features of MLPs, and what alignment samples, in the backward pass
    instead of keeping them."""
    spike: Annotated[SpikeBranchSettings, SPIKES] = SpikeBranchSettings()
    """The spike branch (not built with fusion none)."""

    @model_validator(mode="after")
    def _a_guess_where_one_is_wanted(self) -> Self:
        if self.guess is None and not self.trunk:
            raise ValueError("trunk false leaves nothing: set guess, or trunk true")
        if self.guess is None and self.flow_from == "guess":
            raise ValueError("flow_from guess wants a guess: set guess, or flow_from frames")
        return self
