"""Settings of a training run: loss, length, optimiser and parallelism.

Here a step is a step of the optimiser.
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
    """Difference in intensity at which Charbonnier changes from quadratic to linear."""
    l1: Weight = 0.0
    """Absolute difference."""
    l2: Weight = 0.0
    """Squared difference."""
    ssim: Weight = 0.0
    """1 - SSIM."""
    vgg: Weight = 0.1
    """L1 distance of VGG16 relu3_3 features."""
    lpips: Weight = 0.0
    """LPIPS (AlexNet)."""
    guess: Weight = 0.5
    """Charbonnier of the first guess, if the model has one (`model.guess`)."""
    weights_dir: Annotated[LocalPath | None, PLACE] = None
    """Folder with vgg16_features.pt and alexnet_features.pt; null: torchvision downloads them."""


class TrainSettings(Section):
    """Length, optimiser and parallelism of a training run."""

    task: Literal["restore", "flow"] = "restore"
    """`restore`: train the model on `data`. `flow`: train only the flow network
    (`model.flow_channels`) on rendered pairs of frames (`scenes`) with exact motion."""
    workers: Annotated[Positive, MAY_CHANGE, SAME_RESOURCES] = 1
    """Number of training processes (ranks): one per GPU, or several on CPU."""
    min_workers: Annotated[Positive | None, MAY_CHANGE, SAME_RESOURCES] = None
    """If workers are lost, the run continues with at least this many until they are back; the batch
    does not change. Null: it needs all workers."""
    gpu: Annotated[bool, MAY_CHANGE, SAME_RESOURCES] = True
    """Give each worker a GPU (NCCL); false: train on CPU (gloo)."""
    cpus_per_worker: Annotated[Annotated[float, Field(gt=0)], MAY_CHANGE, SAME_RESOURCES] = 1.0
    """CPUs that Ray reserves for a worker; the other CPUs prepare data."""
    threads_per_worker: Annotated[Width, MAY_CHANGE] = 1
    """Number of torch threads of a worker on CPU."""
    steps: Annotated[Positive, MAY_CHANGE, SAME_BUDGET] = 300_000
    """Number of optimiser steps, if `minutes` does not set it."""
    minutes: Annotated[Annotated[float, Field(gt=0, le=1e6)] | None, MAY_CHANGE, SAME_BUDGET] = None
    """Time for all steps together in minutes, without validation and saving. The run measures its
    first steps, at the initial learning rate, and computes the number of steps. Null: `steps`."""
    clock: Annotated[Literal["wall", "cpu"], MAY_CHANGE, SAME_BUDGET] = "wall"
    """How `minutes` are measured: wall-clock time, or CPU time of the worker of rank 0 (all
    threads), which other programs on the machine hardly change."""
    batch: Annotated[Positive, SAME_SAMPLES, SWEPT_BY_TIME] = 8
    """Samples per optimiser step, over all workers."""
    accumulation: Positive = 1
    """Micro-batches per step; each has batch / workers / accumulation samples."""
    precision: Precision = "float32"
    """Floating-point precision of the forward and backward pass; master weights and the loss stay
    float32."""
    compile: Annotated[bool, COST] = False
    """Compile each block with torch.compile."""
    shard_over: Annotated[Literal["all", "node"], COST] = "all"
    """Workers over which weights are sharded. `all`: all workers (FSDP). `node`: the workers of a
    node, so that only gradients pass between nodes (hybrid FSDP: more memory, less
    communication)."""
    reshard: Annotated[bool, COST] = True
    """Free the gathered weights of a block after its forward pass and gather them again in the
    backward pass: less memory, more communication."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """AdamW, or Adam."""
    lr: Annotated[float, Field(gt=0, le=1e3)] = 4e-4
    """Peak learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    """Decay rates of the optimiser's first and second moment."""
    weight_decay: Weight = 0.0
    """Decoupled weight decay."""
    schedule: Literal["cosine", "cosine_restarts", "multistep", "constant"] = "cosine"
    """Schedule of the learning rate after the warm-up."""
    warmup_steps: Count = 0
    """Number of first steps over which the learning rate rises linearly."""
    min_lr: Annotated[float, Field(ge=0)] = 1e-7
    """Final learning rate of a cosine schedule."""
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    """When the learning rate halves (multistep) or starts again (cosine_restarts), as rising
    fractions of `steps`."""
    flow_lr_scale: Weight = 0.125
    """Learning rate of the flow and deformable layers, as a multiple of `lr`."""
    freeze_flow_steps: Count = 20_000
    """Number of first steps in which the flow and deformable layers are frozen."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Greatest norm of the gradient; null: no clipping."""
    ema: Fraction = 0.0
    """Decay of the moving average of the weights, which is validated and exported; 0: no
    average."""
    init_weights: Annotated[
        Annotated[tuple[NameOrPath, ...], BeforeValidator(listed), Field(min_length=1)] | None,
        MAY_CHANGE,
    ] = None
    """Initial weights, one or several that are loaded in turn; null: random weights. Each is a file
    (our export of a model, a flow network or a first guess, or a published VRT) or the name of
    packaged weights (`small`, `small-no-spike`, `flow`; write `./small` for a file of that
    name)."""
    validate_every: Annotated[StepsOrShare, MAY_CHANGE, SAME_STEPS] = 5000
    """Steps between validations; below 1, a fraction of all steps (0.2: five validations); 0: only
    after the last step."""
    checkpoint_every: Annotated[Positive, PLACE] = 1000
    """Steps between checkpoints; one more is written after the last step."""
    keep_checkpoints: Annotated[Positive, PLACE] = 2
    """Number of newest checkpoints to keep, in addition to the best one."""
    log_every: Annotated[Positive, MAY_CHANGE] = 10
    """Steps between lines of metrics.jsonl."""
    max_bad_steps: Annotated[Count, MAY_CHANGE] = 10
    """Number of steps in a row with a non-finite loss or gradient that are skipped before the run
    fails."""
    hang_timeout_s: Annotated[Seconds, PLACE] = 900.0
    """Seconds without progress after which the workers are restarted; the log names the worker that
    the others waited for."""
    start_timeout_s: Annotated[Seconds, PLACE] = 3600.0
    """Seconds to wait for the resources of the workers, at the start and after a worker is lost."""
    storage_timeout_s: Annotated[Annotated[float, Field(ge=0, le=1e8)], PLACE] = 600.0
    """If storage is full or unavailable, seconds for which to retry the last checkpoint and the
    weights; other checkpoints are retried soon, while training continues."""

    @property
    def micro_batch(self) -> int:
        """Return the number of samples in a micro-batch of one worker."""
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
