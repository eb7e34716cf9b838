"""Every setting of vrtspike: frozen, typed, documented, and refused when unknown.

Those of cameras, scenes and videos are in `vrtspike.scene_settings`, of sweeps in
`vrtspike.sweep_settings`.

`vrtspike.config` reads these from YAML and dotted overrides. Lengths in time are steps of the
spike camera unless a name says frames, seconds or Hz; sizes are pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from vrtspike.scene_settings import CameraSettings, SceneSettings, VideoSettings
from vrtspike.section import (
    Count,
    Depth,
    Fraction,
    LocalPath,
    NameOrPath,
    Place,
    PlainName,
    PlainPath,
    Positive,
    Ratio,
    Seconds,
    Section,
    Seed,
    Side,
    StepsOrShare,
    Weight,
    Width,
    listed,
)
from vrtspike.sweep_settings import SweepSettings

Precision = Literal["float32", "bfloat16"]
Decay = Annotated[float, Field(ge=0, lt=1)]
Groups = Annotated[int, Field(ge=0, le=64)]
LayoutName = Literal[
    "vrtspike",
    "spk_gopro",
    "spk_gopro_gamma",
    "spk_x4k_33",
    "spk_x4k_65",
    "s_sdm",
    "gopro",
    "gopro_gamma",
    "dvd",
    "reds",
    "spikecv",
]


class RunSettings(Section):
    """Where a run lives and how it starts."""

    name: PlainPath = "run"
    """Folder of the run under `root`; a run of the same name continues where it stopped."""
    root: Place = Path("runs")
    """Folder of all runs: a path, which all nodes of a cluster must share, or a URI such as
    s3://bucket/runs."""
    seed: Seed = 0
    """Seed of initialisation, sample order and every random draw."""
    max_failures: Count = 3
    """How often failed workers are started again without a new checkpoint in between."""
    cluster_cpus: Annotated[float, Field(gt=0)] | None = None
    """CPUs that a cluster which grows by itself can have; null: those that it has now."""
    cluster_gpus: Positive | None = None
    """GPUs that a cluster which grows by itself can have; null: those that it has now."""


class MisregisterSettings(Section):
    """How far training samples' spikes lie beside what their frames show, as a draw for each."""

    model_config = ConfigDict(allow_inf_nan=False)

    shift: Annotated[float, Field(ge=0, le=1024)] = 0.0
    """Greatest shift down or up, and to the left or right, in frame pixels."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Greatest rotation either way around the middle of the crop, in degrees."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Greatest share by which the spikes' picture is larger or smaller."""


class DataSettings(Section):
    """A dataset folder, the shards made from it, and what the model sees of them."""

    source: Place = Path("data/scenes")
    """Dataset folder: a path, or a URI such as s3://bucket/folder."""
    layout: LayoutName = "vrtspike"
    """How the dataset folder is laid out. `vrtspike`: <split>/<sequence>/{blurred,sharp,spike} and
    dataset.yaml; the others as their authors publish them (`vrtspike.data.layouts`)."""
    shards: Place = Path("data/shards")
    """Folder of the prepared Parquet shards: a path, or a URI."""
    train_split: PlainName = "train"
    """Split that is trained on."""
    val_split: PlainName = "val"
    """Split that is validated on, whole frames, while training."""
    frames: Annotated[int, Field(ge=2, le=1000)] = 6
    """Frames of a training sample (t)."""
    stride: Positive = 1
    """Frames between the starts of two samples of a sequence."""
    crop: Side = 256
    """Side of the square training crop."""
    voxels: Literal["rate", "log1p"] = "rate"
    """`rate`: count / steps of the bin x threshold. `log1p`: log1p of the count."""
    augment: bool = True
    """Random flips and transpositions, in space and time."""
    threshold_factors: Annotated[
        tuple[Annotated[int, Field(gt=0, lt=256)], ...], Field(min_length=1)
    ] = (1,)
    """One of these is drawn for each training sample: its spikes become those of a camera of so
    many times the threshold."""
    time_shift_steps: Count = 0
    """Training samples' spikes are shifted against their frames by up to so many steps, earlier or
    later."""
    drop_spikes: Fraction = 0.0
    """Share of the training samples whose spikes are all taken away, so that the model learns what
    to do without."""
    lose_spikes: Fraction = 0.0
    """Training samples lose a share of their spikes at random, drawn from 0 to this."""
    spike_noise: Fraction = 0.0
    """Pixels of training samples fire in each step with a probability of their own, drawn from 0 to
    this."""
    misregister: MisregisterSettings = MisregisterSettings()
    """Where training samples' spikes lie on their frames."""
    shard_samples: Positive = 32
    """Samples of a shard file."""
    tile: Positive | None = None
    """Side of the tiles into which training frames are cut when sharding; null: whole frames."""
    allow_refused: Count = 0
    """How many sequences `prepare` may refuse before it fails."""


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
    chunk_size: Positive | None = None
    """Attention over spikes works on chunks of the picture: side of a square or number of rows, in
    pixels of each scale. Memory only: smaller chunks take less, and are computed again in the
    backward pass. Null: no chunks."""
    chunk_shape: Literal["square", "rows"] = "square"
    """Squares, or bands over the whole width."""
    max_batch_tokens: Positive | None = None
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

    fusion: Literal["temporal", "window", "concat", "early", "none"] = "temporal"
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
    checkpoint_attention: bool = False
    """Recompute attention in the backward pass instead of keeping it."""
    checkpoint_mlp: bool = True
    """Recompute the hidden features of MLPs, and what alignment samples, in the backward pass
    instead of keeping them."""
    spike: SpikeBranchSettings = SpikeBranchSettings()
    """The spike branch (not built with fusion none)."""

    @model_validator(mode="after")
    def _a_guess_where_one_is_wanted(self) -> Self:
        if self.guess is None and not self.trunk:
            raise ValueError("trunk false leaves nothing: set guess, or trunk true")
        if self.guess is None and self.flow_from == "guess":
            raise ValueError("flow_from guess wants a guess: set guess, or flow_from frames")
        return self


class LossSettings(Section):
    """Weights of the loss terms; a term of weight 0 is not computed."""

    charbonnier: Weight = 1.0
    """sqrt(difference^2 + charbonnier_eps^2)."""
    charbonnier_eps: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Where Charbonnier turns from quadratic to linear (intensity)."""
    l1: Weight = 0.0
    """Absolute difference."""
    l2: Weight = 0.0
    """Squared difference."""
    ssim: Weight = 0.0
    """1 - SSIM."""
    vgg: Weight = 0.1
    """L1 between VGG16 relu3_3 features."""
    lpips: Weight = 0.0
    """LPIPS (AlexNet)."""
    guess: Weight = 0.5
    """Charbonnier of the first guess that VRT refines (`model.guess`), where there is one."""
    weights_dir: LocalPath | None = None
    """Folder with vgg16_features.pt and alexnet_features.pt; null: torchvision's own download."""


class TrainSettings(Section):
    """Length, optimiser and parallelism of a training run."""

    task: Literal["restore", "flow"] = "restore"
    """`restore`: the model, on `data`. `flow`: the flow network alone (`model.flow_channels`), on
    pairs of frames rendered as `scenes` says, with their exact motion."""
    workers: Positive = 1
    """Training processes (ranks); one a GPU, or several on CPU."""
    min_workers: Positive | None = None
    """Fewest workers with which the run goes on when others are lost, until they are back; the
    batch stays the same. Null: all are needed."""
    gpu: bool = True
    """One GPU a worker (NCCL); false trains on CPU (gloo)."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """CPUs that Ray reserves for a worker; what is left over prepares data."""
    threads_per_worker: Width = 1
    """Torch threads of a worker on CPU."""
    steps: Positive = 300_000
    """Optimiser steps; those that `minutes` decide, if they are set."""
    minutes: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Minutes that all steps together take, without validation and saving: the run measures its
    first steps, at the rate that the schedule starts with, and sets their number. Null: `steps`."""
    clock: Literal["wall", "cpu"] = "wall"
    """What `minutes` are: by the clock, or CPU time of a worker's process (rank 0, all threads
    together), which other work on the machine changes little."""
    batch: Positive = 8
    """Samples of one optimiser step, over all workers."""
    accumulation: Positive = 1
    """Micro-batches of a step; each holds batch / workers / accumulation samples."""
    precision: Precision = "float32"
    """Arithmetic of the forward and backward pass; master weights and loss stay float32."""
    compile: bool = False
    """torch.compile each block."""
    shard_over: Literal["all", "node"] = "all"
    """Which workers share the weights: all of them (FSDP), or those of a node, so that only
    gradients cross between nodes (hybrid FSDP: more memory, less communication)."""
    reshard: bool = True
    """Drop a block's gathered weights after its forward pass and gather them again for the backward
    pass: less memory, more communication."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """Optimiser."""
    lr: Annotated[float, Field(gt=0, le=1e3)] = 4e-4
    """Peak learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    """Decay of the optimiser's moments."""
    weight_decay: Weight = 0.0
    """Decoupled weight decay."""
    schedule: Literal["cosine", "cosine_restarts", "multistep", "constant"] = "cosine"
    """Learning rate after the warm-up."""
    warmup_steps: Count = 0
    """Steps over which the learning rate rises linearly."""
    min_lr: Annotated[float, Field(ge=0)] = 1e-7
    """Last learning rate of a cosine."""
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    """Where the learning rate halves (multistep) or starts again (cosine_restarts), as fractions of
    `steps`, rising."""
    flow_lr_scale: Weight = 0.125
    """Learning rate of the flow and deformable layers over `lr`."""
    freeze_flow_steps: Count = 20_000
    """Steps in which the flow and deformable layers do not learn."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Greatest gradient norm; null: no clipping."""
    ema: Fraction = 0.0
    """Decay of the averaged weights that are validated and exported; 0: none."""
    init_weights: (
        Annotated[tuple[NameOrPath, ...], BeforeValidator(listed), Field(min_length=1)] | None
    ) = None
    """Weights to start from, one or several that are loaded in turn: a file, our export (of a whole
    model, of a flow network or first guess alone) or a published VRT, or packaged ones by name
    (`small`, `small-no-spike`, `flow`; a file of that name is `./small`); null: from scratch."""
    validate_every: StepsOrShare = 5000
    """Steps between validations, or, below 1, their share of all steps (0.2: five validations); 0:
    only after the last step."""
    checkpoint_every: Positive = 1000
    """Steps between checkpoints; one more is written after the last step."""
    keep_checkpoints: Positive = 2
    """Newest checkpoints that are kept, beside the best."""
    log_every: Positive = 10
    """Steps between lines of metrics.jsonl."""
    max_bad_steps: Count = 10
    """Non-finite steps in a row that are skipped before the run fails."""
    hang_timeout_s: Seconds = 900.0
    """Seconds without any progress after which the workers are started anew, and the one that the
    others waited for is named."""
    start_timeout_s: Seconds = 3600.0
    """Seconds for which the run waits for room for its workers, at the start and after a loss."""
    storage_timeout_s: Annotated[float, Field(ge=0, le=1e8)] = 600.0
    """Seconds for which writing the last checkpoint and the weights is tried again when storage is
    full or away; other checkpoints are tried again soon while training goes on."""

    @property
    def micro_batch(self) -> int:
        """Return the samples of one micro-batch of one worker."""
        return self.batch // (self.workers * self.accumulation)

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} is more than workers {self.workers}")
        if self.min_workers is not None and self.shard_over == "node":
            raise ValueError("shard_over node wants equal nodes; min_workers may leave others")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones {self.milestones} do not rise")
        if self.clock == "cpu" and self.gpu:
            raise ValueError("clock cpu goes with gpu false: what a GPU does takes no CPU time")
        return self


class EvaluationSettings(Section):
    """Which frames are evaluated and how the model runs over them."""

    split: PlainName = "held_out"
    """Split of the dataset folder."""
    tile: Positive | None = None
    """Side of the spatial tiles; null: whole frames, or the best that fit into free memory."""
    tile_frames: Annotated[int, Field(ge=2, le=1_000_000)] = 12
    """Most frames restored at once."""
    overlap: Count = 32
    """Pixels that neighbouring tiles share."""
    overlap_frames: Count = 2
    """Frames that neighbouring clips share."""
    tfp_steps: Positive = 32
    """Window of the scaled spike average (TFP), centred at the target step."""
    sdm_steps: Positive = 32
    """Short window of the spike/blur ratio method (SDM)."""
    precision: Precision = "float32"
    """Arithmetic of the models."""
    lpips: bool = False
    """Compute LPIPS too, and its change in time (needs `loss.weights_dir` or internet)."""
    luma: bool = False
    """Compute PSNR and SSIM of luma (Y of BT.601) too."""
    robustness: bool = False
    """Run the models that take spikes with disturbed ones too, over twenty times more work."""


class Config(Section):
    """All settings of a run."""

    run: RunSettings = RunSettings()
    camera: CameraSettings = CameraSettings()
    scenes: SceneSettings | None = None
    """Scenes to render where `data.source` is missing; null: the dataset must be there."""
    video: VideoSettings = VideoSettings()
    """How `vrtspike simulate --video` records a video."""
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    train: TrainSettings = TrainSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    sweep: SweepSettings | None = None
    """What `vrtspike tune` tries; null: nothing (a configuration to train)."""

    @property
    def rendered(self) -> SceneSettings | None:
        """Return the scenes to render where the dataset is missing; other layouts are not ours."""
        return self.scenes if self.data.layout == "vrtspike" else None

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        share = self.train.workers * self.train.accumulation
        if self.train.batch % share:
            raise ValueError(
                f"train.batch {self.train.batch} does not divide over train.workers "
                f"{self.train.workers} x train.accumulation {self.train.accumulation}"
            )
        return self
