"""One training process (rank): build, continue, step, validate, save, export.

Ray Train starts `run_worker` on every rank and starts all of them again when one dies; each start
continues from the newest checkpoint that verifies. Ranks agree on everything that changes the run
(skips, stops, checkpoints), so none of them waits for another in vain. Errors of our own would
only repeat: they go to the driver through the run's folder, and Ray sees a normal end.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import nn

from vrtspike.config import dump_config
from vrtspike.data.order import Share, micro_batch
from vrtspike.data.pipeline import MicroBatches, Stream
from vrtspike.data.samples import SampleReader
from vrtspike.data.shards import Manifest, read_manifest
from vrtspike.errors import ResourceError, VrtSpikeError
from vrtspike.losses import LossTerms
from vrtspike.model import build_model, load_weights
from vrtspike.settings import Config
from vrtspike.training.checkpoint import Saved, newest, prune
from vrtspike.training.ema import AveragedWeights
from vrtspike.training.export import write_export
from vrtspike.training.folder import RunFolder, WorkerPlan
from vrtspike.training.journal import Journal
from vrtspike.training.local import LocalParameters
from vrtspike.training.optim import build_optimizer, learning_rate, set_learning_rate
from vrtspike.training.parallel import full_weights, parallelize, reshard_all
from vrtspike.training.saving import save
from vrtspike.training.state import TrainingState
from vrtspike.training.step import StepResult, TrainingStep, VoxelScale
from vrtspike.training.validation import Score, validate

logger = logging.getLogger(__name__)


def run_worker(plan: WorkerPlan) -> None:
    """Train until the last step or until asked to stop."""
    folder = RunFolder(Path(plan.run))
    if folder.failure.exists():
        return
    try:
        Worker(plan, folder).run()
    except VrtSpikeError as error:
        logger.exception("the run cannot go on")
        folder.report_failure(error)


class Worker:
    """One rank of a run."""

    def __init__(self, plan: WorkerPlan, folder: RunFolder) -> None:
        self.config, self.folder, self._data_cpus = plan.config, folder, plan.data_cpus
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.device = ray.train.torch.get_device()
        train = self.config.train
        if self.device.type == "cpu":
            torch.set_num_threads(train.threads_per_worker)
        self.manifest = read_manifest(self.config.data.shards)
        self.saved, self.passed_over = self._newest_checkpoint()
        self.batches = self._micro_batches(self.saved.step if self.saved else 0)
        # Data tasks take seconds to come up; the model is built meanwhile.
        self.batches.start()
        self.voxels = voxel_scale(self.config, self.manifest)
        self.model = self._build_model()
        parameters = LocalParameters(self.model)
        self.optimizer = build_optimizer(
            parameters.parts,
            kind=train.optimizer,
            lr=train.lr,
            flow_lr_scale=train.flow_lr_scale,
            betas=train.betas,
            weight_decay=train.weight_decay,
        )
        self.average = AveragedWeights(parameters, train.ema) if train.ema else None
        self.state = TrainingState(
            self.model,
            parameters,
            self.optimizer,
            self.average,
            rank=self.rank,
            device=self.device,
        )
        self.step = TrainingStep(
            self.model,
            parameters,
            LossTerms(**self.config.loss.model_dump()).to(self.device),
            self.optimizer,
            device=self.device,
            accumulation=train.accumulation,
            precision=train.precision,
            clip_norm=train.clip_norm,
            voxels=self.voxels,
        )
        self.best: tuple[float, int] | None = None
        self.skipped = 0
        self.saved_step = -1
        self.started = time.time()

    def run(self) -> None:
        """Train from where the run stands to its last step, and export."""
        train = self.config.train
        done = self._resume()
        if self.rank == 0:
            self.journal = Journal(self.folder.path, resumed=done)
            facts = {"world_size": self.world, "passed_over": self.passed_over}
            self.journal.write("start", done, **facts)
        stopped = False
        if done < train.steps:
            done, stopped = self._train(done)
        if not stopped:
            self._export(done)
        if self.rank == 0:
            self.journal.close()

    def _build_model(self) -> nn.Module:
        """Build equal weights on all ranks, then shard them; later draws differ by rank."""
        train, seed = self.config.train, self.config.run.seed
        torch.manual_seed(seed)
        model = build_model(self.config.model)
        if train.init_weights is not None:
            logger.info("%s: %s", train.init_weights, load_weights(model, train.init_weights))
        torch.manual_seed(seed * 1_000_003 + self.rank + 1)
        return parallelize(
            model.to(self.device),
            self.device,
            compile_blocks=train.compile,
            reshard=train.reshard,
        )

    def _newest_checkpoint(self) -> tuple[Saved | None, list[str]]:
        """Let rank 0 choose the newest checkpoint that verifies; tell what is damaged."""
        found: list[Any] = [None]
        if self.rank == 0:
            try:
                found = [newest(self.folder.checkpoints)]
            except VrtSpikeError as error:
                found = [error]
        dist.broadcast_object_list(found)
        if isinstance(found[0], VrtSpikeError):
            raise found[0]
        chosen: tuple[Saved | None, list[str]] = found[0]
        return chosen

    def _resume(self) -> int:
        """Take over the chosen checkpoint, if any; return the steps done."""
        saved = self.saved
        if saved is None:
            return 0
        if not self.state.restore(saved):
            # Another number of ranks: draws cannot continue, but they need not repeat either.
            seeds = np.random.SeedSequence((self.config.run.seed, saved.step, self.rank))
            torch.manual_seed(int(seeds.generate_state(1)[0]))
        best = saved.facts["best"]
        self.best = (best[0], best[1]) if best else None
        self.skipped = saved.facts["skipped"]
        self.started = time.time() - saved.facts["elapsed_s"]
        self.saved_step = saved.step
        return saved.step

    def _train(self, done: int) -> tuple[int, bool]:
        """Step from `done` to the end; return the steps done and whether a stop cut it short."""
        train = self.config.train
        stream, clock = iter(self.batches), _Clock(self.batches)
        first, bad = done, 0
        for step in range(done, train.steps):
            rate = self._set_rate(step)
            result = self.step(
                itertools.islice(stream, train.accumulation),
                freeze_flow=step < train.freeze_flow_steps,
                stop=self.rank == 0 and self.folder.stop.exists(),
            )
            done = step + 1
            bad = self._count(result, step, bad)
            clock.step()
            last = done == train.steps
            if self.rank == 0 and (done % train.log_every == 0 or last or done == first + 1):
                self._log(done, result, rate, clock)
            if last or (train.validate_every and done % train.validate_every == 0):
                self._validate(done)
            if last or result.stop or done % train.checkpoint_every == 0:
                self._save(done)
            if result.stop:
                return done, not last
            clock.resume()
        return done, False

    def _set_rate(self, step: int) -> float:
        """Give the optimiser the learning rate of a step."""
        train = self.config.train
        rate = learning_rate(
            step,
            steps=train.steps,
            lr=train.lr,
            schedule=train.schedule,
            warmup_steps=train.warmup_steps,
            min_lr=train.min_lr,
            milestones=train.milestones,
        )
        set_learning_rate(self.optimizer, rate)
        return rate

    def _count(self, result: StepResult, step: int, bad: int) -> int:
        """Average after a step; count a skipped one, and fail after too many in a row."""
        if result.stepped:
            if self.average is not None:
                self.average.update()
            return 0
        self.skipped += 1
        logger.warning("step %d skipped: loss %s, norm %s", step, result.loss, result.grad_norm)
        if bad + 1 > self.config.train.max_bad_steps:
            raise ResourceError(
                "loss or gradients are not finite",
                where=f"steps {step - bad + 1} to {step + 1}, samples {self._sample_ids(step)}",
                got=f"loss {result.loss}, gradient norm {result.grad_norm}",
                expected=f"at most {self.config.train.max_bad_steps} such steps in a row",
                fix="lower train.lr, set train.clip_norm, or look at the samples",
            )
        return bad + 1

    def _sample_ids(self, step: int) -> str:
        """Name the samples of a step, of all ranks."""
        train, split = self.config.train, self.manifest.splits[self.config.data.train_split]
        share = Share(train.batch, train.accumulation, self.world)
        draws = [
            draw
            for micro in range(train.accumulation)
            for rank in range(self.world)
            for draw in micro_batch(
                self.config.run.seed,
                len(split.samples),
                share,
                step * train.accumulation + micro,
                rank,
            )
        ]
        return ", ".join(split.samples[draw.index].id for draw in draws[:8])

    def _micro_batches(self, done: int) -> MicroBatches:
        """Open this rank's stream at step `done`."""
        train, data = self.config.train, self.config.data
        share = Share(train.batch, train.accumulation, self.world)
        samples = len(self.manifest.splits[data.train_split].samples)
        stream = Stream(self._reader(data.train_split), samples, share, self.rank)
        numbers = (done * train.accumulation, train.steps * train.accumulation)
        return MicroBatches(stream, *numbers, cpus=self._data_cpus)

    def _reader(self, split: str) -> SampleReader:
        data, model = self.config.data, self.config.model
        return SampleReader(
            shards=str(data.shards),
            split=split,
            fingerprint=self.manifest.fingerprint,
            crop=data.crop,
            augment=data.augment,
            bins=None if model.fusion == "none" else model.spike.bins,
            seed=self.config.run.seed,
            threshold_factors=data.threshold_factors,
            time_shift_steps=data.time_shift_steps,
        )

    def _log(self, done: int, result: StepResult, rate: float, clock: _Clock) -> None:
        """Write a line of metrics."""
        steps, seconds, waited = clock.take()
        self.journal.write(
            "train",
            done,
            loss=result.loss,
            lr=rate,
            grad_norm=result.grad_norm,
            samples_per_s=steps * self.config.train.batch / seconds,
            step_s=seconds / steps,
            data_wait=waited / seconds,
            memory_gb=_memory_gb(self.device),
            skipped=self.skipped,
            elapsed_s=time.time() - self.started,
        )

    def _validate(self, done: int) -> None:
        """Score the averaged weights (or the weights); keep a new best one."""
        with self._final_weights():
            score = validate(
                self.model,
                self._reader(self.config.data.val_split),
                len(self.manifest.splits[self.config.data.val_split].samples),
                device=self.device,
                autocast=self.step.autocast(),
                voxels=self.voxels,
            )
            reshard_all(self.model)
        improved = self.best is None or score.psnr > self.best[0]
        if improved:
            self.best = (score.psnr, done)
        if self.rank == 0:
            self._log_score(done, score)
        if improved:
            self._save(done)

    def _log_score(self, done: int, score: Score) -> None:
        assert self.best is not None
        self.journal.write(
            "val",
            done,
            psnr=score.psnr,
            ssim=score.ssim,
            blurred_psnr=score.blurred_psnr,
            best_psnr=self.best[0],
        )

    def _save(self, done: int) -> None:
        """Write a checkpoint, unless this step has one, and delete what is not kept."""
        if self.saved_step == done:
            return
        facts = {
            "config": self.config.model_dump(mode="json"),
            "fingerprint": self.manifest.fingerprint,
            "best": self.best,
            "skipped": self.skipped,
            "elapsed_s": time.time() - self.started,
        }
        path = save(self.folder.checkpoints, done, self.state.collect(), facts)
        self.saved_step = done
        if self.rank == 0:
            self.journal.write("saved", done, checkpoint=path.name)
            keep = self.config.train.keep_checkpoints
            prune(self.folder.checkpoints, keep=keep, best_step=self.best[1] if self.best else None)

    def _export(self, done: int) -> None:
        """Write the final weights on rank 0."""
        with self._final_weights():
            weights = full_weights(self.model)
            reshard_all(self.model)
        if self.rank == 0:
            metadata = {"config": dump_config(self.config), "step": str(done)}
            write_export(self.folder.export, weights, metadata)
        dist.barrier()

    def _final_weights(self) -> Any:
        """Put the averaged weights in place, where there are any."""
        return (
            contextlib.nullcontext() if self.average is None else self.average.in_place_of_weights()
        )


class _Clock:
    """Measure the time of steps between two log lines, without validation and saving."""

    def __init__(self, batches: MicroBatches) -> None:
        self._batches = batches
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        self._since = time.perf_counter()

    def step(self) -> None:
        """End a step."""
        self._steps += 1
        self._seconds += time.perf_counter() - self._since

    def resume(self) -> None:
        """Begin the next step."""
        self._since = time.perf_counter()

    def take(self) -> tuple[int, float, float]:
        """Return steps, seconds and seconds of waiting for data since the last call."""
        waited = self._batches.waited
        taken = (self._steps, self._seconds, waited - self._waited)
        self._steps, self._seconds, self._waited = 0, 0.0, waited
        return taken


def voxel_scale(config: Config, manifest: Manifest) -> VoxelScale | None:
    """Return how counts become voxels, or None for a model without spikes."""
    if config.model.fusion == "none":
        return None
    return VoxelScale(manifest.info.camera.threshold, config.data.voxels)


def _memory_gb(device: torch.device) -> float:
    """Return the most memory that this process has held, in 10^9 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
