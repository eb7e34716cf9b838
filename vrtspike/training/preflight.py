"""Checks before any worker starts; each raises one error that states the numbers."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from vrtspike.checkpoints.manifest import newest
from vrtspike.config.config import Config
from vrtspike.config.loader import keys_with, leaves, within
from vrtspike.config.model import ModelSettings
from vrtspike.config.roles import COST, MAY_CHANGE, PLACE
from vrtspike.config.train import LossSettings
from vrtspike.errors import CheckpointError, ConfigError, ResourceError
from vrtspike.metrics.losses import LossTerms
from vrtspike.model import build_model
from vrtspike.model.weights import check_weights
from vrtspike.runs.folder import checkpoints_of
from vrtspike.samples.shards import MANIFEST, Manifest, read_manifest, split_of
from vrtspike.storage.folder import Folder
from vrtspike.training.budget import pace_in, steps_of
from vrtspike.training.tasks import task_of
from vrtspike.weights import or_by_name, packaged

logger = logging.getLogger(__name__)

DATA_CPUS = 1.0
"""Fewest CPUs that Ray Data needs in addition to the training workers."""
DATA_CPUS_PER_WORKER = 8.0
"""Most CPUs for the data tasks of one worker."""


class Fingerprinted(Protocol):
    """Training data: a shard manifest or a task."""

    @property
    def fingerprint(self) -> str:
        """Return a hash that differs between different data."""
        ...


def data_cpus(config: Config, resources: Mapping[str, float]) -> float:
    """Check that workers and Ray Data fit the cluster; return the CPUs for one worker's data tasks.

    With `train.min_workers`, count only as many workers as fit now. Raises ResourceError if there
    are too few CPUs or GPUs.
    """
    train = config.train
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    workers, setting = train.workers, "train.workers"
    if train.min_workers is not None:
        capacity = min((cpus - DATA_CPUS) // train.cpus_per_worker, gpus if train.gpu else workers)
        if capacity < workers:
            workers, setting = max(train.min_workers, int(capacity)), "train.min_workers"
    asked = workers * train.cpus_per_worker
    if asked + DATA_CPUS > cpus:
        share = max(0.0, cpus - DATA_CPUS) / workers
        raise ResourceError(
            "too few CPUs for the training workers and the data tasks",
            got=f"{cpus:g} CPUs",
            expected=f"{asked + DATA_CPUS:g}: {workers} workers x "
            f"{train.cpus_per_worker:g} (train.cpus_per_worker) + {DATA_CPUS:g} for Ray Data",
            fix=f"set train.cpus_per_worker={int(share * 100) / 100:g} or fewer {setting}"
            if share >= 0.01
            else "use a machine with 2 CPUs or more; of a cluster that grows by itself, set "
            "run.cluster_cpus",
        )
    if train.gpu and workers > gpus:
        raise ResourceError(
            "too few GPUs for the training workers",
            got=f"{gpus:g} GPUs",
            expected=f"{workers}, one a worker ({setting})",
            fix=f"set train.gpu=false to train on CPU, or fewer {setting}; of a cluster that grows "
            "by itself, set run.cluster_gpus",
        )
    return min((cpus - asked) / workers, DATA_CPUS_PER_WORKER)


def check_data(config: Config, manifest: Manifest) -> None:
    """Check that the shards were prepared as the configuration says, and fit its crop and model.

    Raises ConfigError if not.
    """
    data, made = config.data, manifest.settings
    source = Folder.at(data.source)
    if manifest.source != str(source) and source.exists():
        raise ConfigError(
            "the shards were prepared from another dataset",
            where=Folder.at(data.shards),
            got=manifest.source,
            expected=f"{source} (data.source)",
            fix=f"set data.shards to another folder, or data.source={manifest.source}",
        )
    for key, prepared, configured in (
        ("layout", made.layout, data.layout),
        ("frames", made.frames, data.frames),
        ("stride", made.stride, data.stride),
        ("tile", made.tile, data.tile),
    ):
        if prepared != configured:
            raise ConfigError(
                f"the shards were prepared with another data.{key}",
                where=Folder.at(data.shards),
                got=prepared,
                expected=configured,
                fix=f"run `vrtspike prepare` with this configuration, or set data.{key}={prepared}",
            )
    shape = split_of(manifest, data.train_split, Folder.at(data.shards)).shape
    split_of(manifest, data.val_split, Folder.at(data.shards))
    if data.crop > min(shape.h, shape.w):
        raise ConfigError(
            "the crop is larger than the training frames",
            got=f"data.crop {data.crop}",
            expected=f"at most {min(shape.h, shape.w)} (samples are {shape.h}x{shape.w})",
            fix=f"set data.crop={min(shape.h, shape.w)} or less",
        )
    scale = manifest.info.spike_scale
    if data.crop % (scale or 1):
        raise ConfigError(
            "the crop does not fit the spike grid",
            got=f"data.crop {data.crop}",
            expected=f"a multiple of {scale}",
        )
    if config.model.fusion != "none":
        _check_spikes(config, manifest)


def _check_spikes(config: Config, manifest: Manifest) -> None:
    """Check that the shards contain spikes that fit the model."""
    where = Folder.at(config.data.shards)
    if manifest.info.spike is None:
        raise ConfigError(
            "the model wants spikes, and the shards hold none",
            where=where,
            got=f"model.fusion {config.model.fusion}",
            expected="none",
            fix="train the baseline with model.fusion=none, or prepare a dataset with spikes",
        )
    if manifest.info.spike_scale is None:
        spike, frame = manifest.info.camera, manifest.info.frame
        raise ConfigError(
            "the spike grid is not a whole number of times coarser than the frames",
            where=where,
            got=f"spikes {spike.grid[0]}x{spike.grid[1]}, frames {frame.height}x{frame.width}",
            fix="resample the frames to a multiple of the spike grid",
        )
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    # In shorter exposures, several bins share a step. More bins than steps in the longest exposure
    # are a mistake.
    exposure = max(shard.timeline.exposure_steps for shard in shards if shard.timeline)
    if config.model.spike.bins > exposure:
        raise ConfigError(
            "more voxel bins than steps in any exposure",
            got=f"model.spike.bins {config.model.spike.bins}",
            expected=f"at most {exposure}",
            fix=f"set model.spike.bins={exposure} or less",
        )


def check_before_ray(config: Config) -> None:
    """Run the checks that need no cluster, so that a mistake is found before Ray starts."""
    restores = config.train.task == "restore"
    if restores and Folder.at(config.data.shards).size(MANIFEST) is not None:
        check_data(config, read_manifest(config.data.shards))
    if not os.environ.get("RAY_ADDRESS"):
        data_cpus(
            config, {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
        )
    check_model_and_loss(config)


def check_model_and_loss(config: Config) -> None:
    """Build the model, its initial weights and the loss, so that errors show before workers start.

    The model is built on the meta device, which takes no memory.
    """
    task, weights = task_of(config), config.train.init_weights
    with torch.device("meta"):
        model = task.build()
    for start in weights or ():
        check_start(model, start)
    task.loss(torch.device("cpu"))


def check_model(model: ModelSettings) -> None:
    """Check that a model can be built; build it on the meta device, which takes no memory."""
    with torch.device("meta"):
        build_model(model)


def check_start(model: nn.Module, weights: str) -> None:
    """Raise CheckpointError if initial weights do not exist or do not fit the model."""
    if not (packaged(weights) or Path(weights)).is_file():
        raise CheckpointError(
            "no weights to start from",
            where=weights,
            fix=or_by_name("check train.init_weights"),
        )
    check_weights(model, weights)


def check_loss(loss: LossSettings) -> None:
    """Check that the loss can be built with these weights."""
    LossTerms(**loss.model_dump())


def check_resume(config: Config, data: Fingerprinted, run: Folder) -> int:
    """Check that an existing run can continue with this configuration; return its step.

    Returns 0 if the run has no checkpoint. Raises ConfigError if a setting or the data have
    changed, or if the run is past its last step.
    """
    saved, _ = newest(checkpoints_of(run), content=False)
    if saved is None:
        return 0
    before, fingerprint = saved.facts["config"], saved.facts["fingerprint"]
    free = keys_with(PLACE, COST, MAY_CHANGE)
    if config.train.task == "flow":  # the scenes are the training data
        free = [key for key in free if key != "scenes"]
    check_continued("run", run, config, data, before, fingerprint, free=free)
    then = saved.facts.get("steps", before["train"]["steps"])
    steps = steps_of(config.train, pace_in(saved.facts))
    if steps is None:
        return saved.step
    jumps = ["the learning rate"] if config.train.schedule != "constant" else []
    jumps += ["the size of the pairs"] if config.train.task == "flow" else []
    if then not in (steps, None) and jumps:
        logger.warning(
            "the run's last step was %s and is %s: %s may jump where it continues",
            then,
            steps,
            " and ".join(jumps),
        )
    if saved.step > steps:
        minutes = config.train.minutes
        raise ConfigError(
            f"the run {config.run.name!r} is past its last step",
            where=run,
            got=f"train.steps {steps}"
            if minutes is None
            else f"train.minutes {minutes:g}, which are {steps} steps",
            expected=f"at least {saved.step} steps",
        )
    return saved.step


def check_continued(
    kind: str,
    folder: Folder,
    config: Config,
    data: Fingerprinted,
    before: Mapping[str, Any],
    fingerprint: str,
    *,
    free: Sequence[str],
) -> None:
    """Check that a run or sweep continues with the same settings and the same data.

    `kind` is "run" or "sweep". `before` and `fingerprint` are the settings and the data that it was
    started with; settings in `free` may differ. Raises ConfigError otherwise.
    """
    what = f"the {kind} {config.run.name!r} was started with"
    old, new = leaves(before), leaves(config.model_dump(mode="json"))
    for key in sorted(old.keys() | new.keys()):
        if not within(key, free) and old.get(key) != new.get(key):
            raise ConfigError(
                f"{what} another {key}",
                where=folder,
                got=new.get(key),
                expected=old.get(key),
                fix=f"restore the setting, or start a {kind} of another run.name",
            )
    if fingerprint != data.fingerprint:
        raise ConfigError(
            f"{what} other training data",
            where=Folder.at(config.data.shards),
            got=f"fingerprint {data.fingerprint[:12]}",
            expected=fingerprint[:12],
            fix=f"restore the shards, or start a {kind} of another run.name",
        )
