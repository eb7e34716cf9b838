"""Settings of the model: VRT, its first guess and its spike branch.

Times are in steps of the spike camera unless a name says frames, seconds or Hz; sizes are in
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
    """Number of voxel bins per frame."""
    bins_around: Literal["exposure", "target"] = "exposure"
    """Span of the bins. `exposure`: the exposure. `target`: as many steps, centred on the target
    instant."""
    windows: tuple[Annotated[float, Field(gt=0, le=4)], ...] = ()
    """Further channels: spike averages (TFP) over windows centred on the target instant. Lengths
    are fractions of the steps of a frame; above 1, windows reach into neighbouring frames."""
    exposure: bool = False
    """A further channel: the spike average over the exposure."""
    interval: bool = False
    """A further channel: the spike interval (TFI) at the target instant."""
    heads: Width = 4
    """Number of heads of the attention over spikes (fusions `temporal` and `window`)."""
    mlp_ratio: Ratio = 2.0
    """Hidden width of the MLPs divided by the channels (fusions `temporal` and `window`)."""
    blocks: Depth = 2
    """Number of residual blocks of the encoder at each scale."""
    kernel: tuple[Depth, Depth, Depth] = (3, 3, 3)
    """Kernel size of the encoder's convolutions in t, h and w."""
    temporal_strides: tuple[Depth, Depth, Depth] = (1, 1, 1)
    """Temporal strides of the encoder's three convolutions to coarser scales."""
    temporal_bias: bool = True
    """Learn a slope for each head that favours spikes of the same instant."""
    window: Width = 8
    """Side of the attention windows of fusion `window`, in pixels of each scale."""
    zero_init_fusion: bool = False
    """Start with fusion layers that add nothing, so that the model starts equal to plain VRT."""
    chunk_size: Annotated[Positive | None, COST] = None
    """Compute the attention over spikes in chunks of the picture: side of a square, or number of
    rows, in pixels of each scale. Smaller chunks take less memory, and the backward pass recomputes
    them; the result is the same. Null: no chunks."""
    chunk_shape: Annotated[Literal["square", "rows"], COST] = "square"
    """Squares, or bands of rows over the whole width."""
    max_batch_tokens: Annotated[Positive | None, COST] = None
    """Greatest number of tokens (batch x instants x pixels) in a chunk, which shrinks to fit, but
    not below one pixel or one window. Null: no limit."""

    @property
    def channels(self) -> int:
        """Return the number of spike channels of the model: bins and further channels."""
        return self.bins + len(self.windows) + self.exposure + self.interval


class GuessSettings(Section):
    """The first guess: a convolutional network whose output VRT refines."""

    channels: Width = 48
    """Number of channels."""
    blocks: Depth = 8
    """Number of residual blocks, each of two convolutions."""


class ModelSettings(Section):
    """VRT and its spike branch; the defaults are the published deblurring model with spikes."""

    fusion: Annotated[Literal["temporal", "window", "concat", "early", "none"], SPIKES] = "temporal"
    """How spikes enter VRT. `temporal`: after each of stages 1-4, each pixel attends to the spikes
    at the same pixel at all instants. `window`: the same with the spikes of all pixels in a window.
    `concat`: spikes are concatenated before the attention of stages 1-4. `early`: spikes are a
    fourth channel of the input. `none`: plain VRT without spikes. A first guess takes spikes too,
    unless fusion is `none`."""
    guess: GuessSettings | None = None
    """A first guess, which replaces the blurred frames as the input of VRT and as the image to
    which VRT adds its output; null: none, as published."""
    trunk: bool = True
    """Whether VRT refines the first guess; false: the model is only the first guess."""
    patch: Literal[1, 2, 4] = 1
    """Side in pixels of the squares that are one token of VRT."""
    flow_from: Literal["frames", "guess"] = "frames"
    """Images for optical flow: the blurred frames, or the first guess."""
    channels: Width = 96
    """Channels of stages 1 to 7."""
    refine_channels: Width = 120
    """Channels of stage 8."""
    blocks: Depth = 8
    """Number of attention blocks in each of stages 1 to 7."""
    mutual_ratio: Fraction = 0.75
    """Fraction of those blocks, the first ones, that use mutual attention."""
    refine_blocks: Depth = 4
    """Number of attention blocks in each group of stage 8."""
    refine_groups: tuple[Groups, Groups] = (2, 2)
    """Number of groups in stage 8 that attend over several frames, and inside one frame."""
    heads: Width = 6
    """Number of attention heads."""
    window: tuple[Width, Width, Width] = (6, 8, 8)
    """Attention window in t, h and w; mutual attention uses 2 frames."""
    mlp_ratio: Ratio = 2.0
    """Hidden width of the MLPs divided by the channels."""
    drop_path: Fraction = 0.2
    """Stochastic depth rate of the last block; it rises linearly from 0 at the first block."""
    deformable_groups: Width = 16
    """Number of offset groups of the deformable alignment."""
    flow_channels: tuple[Width, Width, Width, Width] = (32, 64, 32, 16)
    """Channels of the hidden layers of each level of the flow network."""
    zero_init_output: bool = False
    """Start with a last convolution of zero, so that the model at first returns its input."""
    zero_init_flow: bool = False
    """Start with a last convolution of zero in each flow level: zero flow is better than the random
    flow of an untrained network."""
    checkpoint_attention: Annotated[bool, COST] = False
    """Recompute attention in the backward pass instead of keeping it in memory."""
    checkpoint_mlp: Annotated[bool, COST] = True
    """Recompute the hidden features of MLPs and the sampled values of the alignment in the backward
    pass instead of keeping them in memory."""
    spike: Annotated[SpikeBranchSettings, SPIKES] = SpikeBranchSettings()
    """The spike branch (not used with fusion `none`)."""

    @model_validator(mode="after")
    def _check_guess(self) -> Self:
        if self.guess is None and not self.trunk:
            raise ValueError("trunk false leaves nothing: set guess, or trunk true")
        if self.guess is None and self.flow_from == "guess":
            raise ValueError("flow_from guess wants a guess: set guess, or flow_from frames")
        return self
