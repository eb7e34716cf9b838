"""Settings of a training run: loss, length, optimiser and parallelism.

Lengths in time are steps of the spike camera unless a name says frames, seconds or Hz; sizes are
pixels.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from vrtspike.config.choices import Precision
from vrtspike.config.roles import (
    COST,
    MAY_CHANGE,
    PLACE,
    SAME_BUDGET,
    SAME_RESOURCES,
    SAME_SAMPLES,
    SAME_STEPS,
    SWEPT_BY_TIME,
)
from vrtspike.config.section import (
    Count,
    Fraction,
    LocalPath,
    NameOrPath,
    Positive,
    Seconds,
    Section,
    StepsOrShare,
    Weight,
    Width,
    listed,
)

Decay = Annotated[float, Field(ge=0, lt=1)]


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
    weights_dir: Annotated[LocalPath | None, PLACE] = None
    """Folder with vgg16_features.pt and alexnet_features.pt; null: torchvision's own download."""


class TrainSettings(Section):
    """Length, optimiser and parallelism of a training run."""

    task: Literal["restore", "flow"] = "restore"
    """`restore`: the model, on `data`. `flow`: the flow network alone (`model.flow_channels`), on
    pairs of frames rendered as `scenes` says, with their exact motion."""
    workers: Annotated[Positive, MAY_CHANGE, SAME_RESOURCES] = 1
    """Training processes (ranks); one a GPU, or several on CPU."""
    min_workers: Annotated[Positive | None, MAY_CHANGE, SAME_RESOURCES] = None
    """Fewest workers with which the run goes on when others are lost, until they are back; the
    batch stays the same. Null: all are needed."""
    gpu: Annotated[bool, MAY_CHANGE, SAME_RESOURCES] = True
    """One GPU a worker (NCCL); false trains on CPU (gloo)."""
    cpus_per_worker: Annotated[Annotated[float, Field(gt=0)], MAY_CHANGE, SAME_RESOURCES] = 1.0
    """CPUs that Ray reserves for a worker; what is left over prepares data."""
    threads_per_worker: Annotated[Width, MAY_CHANGE] = 1
    """Torch threads of a worker on CPU."""
    steps: Annotated[Positive, MAY_CHANGE, SAME_BUDGET] = 300_000
    """Optimiser steps; those that `minutes` decide, if they are set."""
    minutes: Annotated[Annotated[float, Field(gt=0, le=1e6)] | None, MAY_CHANGE, SAME_BUDGET] = None
    """Minutes that all steps together take, without validation and saving: the run measures its
    first steps, at the rate that the schedule starts with, and sets their number. Null: `steps`."""
    clock: Annotated[Literal["wall", "cpu"], MAY_CHANGE, SAME_BUDGET] = "wall"
    """What `minutes` are: by the clock, or CPU time of a worker's process (rank 0, all threads
    together), which other work on the machine changes little."""
    batch: Annotated[Positive, SAME_SAMPLES, SWEPT_BY_TIME] = 8
    """Samples of one optimiser step, over all workers."""
    accumulation: Positive = 1
    """Micro-batches of a step; each holds batch / workers / accumulation samples."""
    precision: Precision = "float32"
    """Arithmetic of the forward and backward pass; master weights and loss stay float32."""
    compile: Annotated[bool, COST] = False
    """torch.compile each block."""
    shard_over: Annotated[Literal["all", "node"], COST] = "all"
    """Which workers share the weights: all of them (FSDP), or those of a node, so that only
    gradients cross between nodes (hybrid FSDP: more memory, less communication)."""
    reshard: Annotated[bool, COST] = True
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
    init_weights: Annotated[
        Annotated[tuple[NameOrPath, ...], BeforeValidator(listed), Field(min_length=1)] | None,
        MAY_CHANGE,
    ] = None
    """Weights to start from, one or several that are loaded in turn: a file, our export (of a whole
    model, of a flow network or first guess alone) or a published VRT, or packaged ones by name
    (`small`, `small-no-spike`, `flow`; a file of that name is `./small`); null: from scratch."""
    validate_every: Annotated[StepsOrShare, MAY_CHANGE, SAME_STEPS] = 5000
    """Steps between validations, or, below 1, their share of all steps (0.2: five validations); 0:
    only after the last step."""
    checkpoint_every: Annotated[Positive, PLACE] = 1000
    """Steps between checkpoints; one more is written after the last step."""
    keep_checkpoints: Annotated[Positive, PLACE] = 2
    """Newest checkpoints that are kept, beside the best."""
    log_every: Annotated[Positive, MAY_CHANGE] = 10
    """Steps between lines of metrics.jsonl."""
    max_bad_steps: Annotated[Count, MAY_CHANGE] = 10
    """Non-finite steps in a row that are skipped before the run fails."""
    hang_timeout_s: Annotated[Seconds, PLACE] = 900.0
    """Seconds without any progress after which the workers are started anew, and the one that the
    others waited for is named."""
    start_timeout_s: Annotated[Seconds, PLACE] = 3600.0
    """Seconds for which the run waits for room for its workers, at the start and after a loss."""
    storage_timeout_s: Annotated[Annotated[float, Field(ge=0, le=1e8)], PLACE] = 600.0
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
