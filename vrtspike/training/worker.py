"""One training process (rank): build, resume, step, validate, save, export.

Ray Train starts `run_worker` on every rank. If one rank dies, it restarts all of them; each start
continues from the newest checkpoint that verifies. All ranks take the same decisions (skip, stop,
save), so none waits for a collective that the others do not call. A VrtSpikeError would only repeat
after a restart: the worker sends it to the driver through the supervisor, and ends normally.
"""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from vrtspike.checkpoints.manifest import newest
from vrtspike.checkpoints.saver import Saver, SaveResult
from vrtspike.errors import ResourceError, StorageError, VrtSpikeError
from vrtspike.runs.export import export_metadata, write_export_surely
from vrtspike.runs.folder import WorkerPlan, checkpoints_of, collective_timeout_s
from vrtspike.runs.metrics_log import MetricsLog
from vrtspike.runs.paths import EXPORT
from vrtspike.runtime.process_memory import keep_heap
from vrtspike.samples.stream import MicroBatch
from vrtspike.training.budget import Budget, pace_in
from vrtspike.training.heartbeat import SupervisorLink
from vrtspike.training.inputs import Inputs
from vrtspike.training.learner import Learner
from vrtspike.training.meter import NO_TIME, Seconds, StepClock, memory_gb
from vrtspike.training.optim import learning_rate, learning_rates, set_learning_rate
from vrtspike.training.parallel import full_weights
from vrtspike.training.rank_sync import check_shared, from_first_rank, ranks_per_node
from vrtspike.training.save_schedule import SaveSchedule
from vrtspike.training.step import StepResult
from vrtspike.training.tasks import task_of

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Time between questions to Ray whether one of the nodes will be taken away."""
STORAGE_PAUSE_SECONDS = 10.0
"""Pause between a storage failure and the restart of the workers."""


def run_worker(plan: WorkerPlan, supervisor: Any) -> None:
    """Train until the last step or until asked to stop."""
    # Objects and checkpoints are exchanged through the CPU (gloo), also if gradients use NCCL.
    patience = timedelta(seconds=collective_timeout_s(plan.config.train))
    gloo = dist.new_group(backend="gloo", timeout=patience)
    assert isinstance(gloo, dist.ProcessGroup)

    def begin() -> str | None:
        name = uuid.uuid4().hex
        return name if ray.get(supervisor.begin.remote(name, dist.get_world_size())) else None

    attempt = from_first_rank(begin, group=gloo)
    if attempt is None:
        return
    link = SupervisorLink(supervisor, attempt, dist.get_rank())
    link.start()
    try:
        Worker(plan, link, gloo).run()
    except StorageError as error:
        # Storage may work again when the workers have restarted.
        link.fail(error)
        time.sleep(STORAGE_PAUSE_SECONDS)
        raise
    except VrtSpikeError as error:
        logger.exception("the run cannot go on")
        link.refuse(error)
    except Exception as error:
        link.fail(error)
        raise
    finally:
        link.close()


class Worker:
    """One rank of a run."""

    def __init__(self, plan: WorkerPlan, link: SupervisorLink, gloo: dist.ProcessGroup) -> None:
        self.config, self.run_folder, self.link = plan.config, plan.run, link
        self.gloo = gloo
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.device = ray.train.torch.get_device()
        train = self.config.train
        if self.device.type == "cpu":
            torch.set_num_threads(train.threads_per_worker)
            keep_heap()
        else:
            torch.cuda.set_device(self.device)
        check_shared(self.run_folder, group=gloo)
        checkpoints = checkpoints_of(self.run_folder)
        self.saved, self.passed_over = from_first_rank(lambda: newest(checkpoints), group=gloo)
        link.tick("building the model")
        self.task = task_of(self.config)
        self.inputs = Inputs(self.task, self.rank, self.world)
        done = self.saved.step if self.saved else 0
        self.budget = Budget(train, pace_in(self.saved.facts) if self.saved else None)
        self.batches = self.inputs.micro_batches(done, self.budget.steps, plan.data_cpus)
        # Data tasks take seconds to start; meanwhile the model is built.
        self.batches.start()
        self.learner = Learner(
            self.task, self.device, rank=self.rank, ranks_per_node=self._ranks_per_node()
        )
        self.step = self.learner.step_over(self.inputs.layout, self.task.unpack)
        keep = train.keep_checkpoints
        saver = Saver(checkpoints, group=gloo, keep=keep, first=self._publish)
        patience = train.storage_timeout_s
        self.schedule = SaveSchedule(saver, self.learner.state, link, self._describe, patience)
        spent = self.saved.facts.get("spent", NO_TIME) if self.saved else NO_TIME
        self.clock = StepClock(self.batches, Seconds(*spent))
        self.best: tuple[float, int] | None = None
        self.skipped = self.validated = 0
        self.next_check = 0.0 if plan.preemptible else float("inf")
        self.started = time.time()

    def run(self) -> None:
        """Train from the newest checkpoint to the last step, then export the weights."""
        self.link.tick("reading the checkpoint")
        done = self._resume()
        if self.rank == 0:
            self.metrics_log = MetricsLog(self.run_folder, resumed=done)
            self._record(
                "start",
                done,
                world_size=self.world,
                passed_over=self.passed_over,
                steps=self.budget.steps,
            )
        stopped = False
        if done != self.budget.steps:
            done, stopped = self._train(done)
        if not stopped:
            self._export(done)
        if self.rank == 0:
            self.metrics_log.close()

    def _ranks_per_node(self) -> int | None:
        """Return how many ranks share one copy of the weights; None if all ranks do."""
        if self.config.train.shard_over == "all":
            return None
        return ranks_per_node(ray.train.get_context().get_local_world_size(), group=self.gloo)

    def _resume(self) -> int:
        """Load the chosen checkpoint, if any; return the number of steps done."""
        saved = self.saved
        if saved is None:
            return 0
        if not self.learner.state.restore(saved, group=self.gloo):
            # The number of ranks has changed, so this rank has no saved generator: use a new seed,
            # so that it does not repeat the draws of the first steps.
            seeds = np.random.SeedSequence((self.config.run.seed, saved.step, self.rank))
            torch.manual_seed(int(seeds.generate_state(1)[0]))
        best = saved.facts["best"]
        self.best = (best[0], best[1]) if best else None
        self.skipped, self.validated = saved.facts["skipped"], saved.facts["validated"]
        self.started = time.time() - saved.facts["elapsed_s"]
        self.schedule.continued(saved.step)
        return saved.step

    def _train(self, done: int) -> tuple[int, bool]:
        """Train from step `done`; return the steps done and whether the run stopped early."""
        train, clock = self.config.train, self.clock
        if self._is_due(done) and self.validated != done:
            # The run was stopped between this step and its validation.
            self._validate(done)
        stream, first, bad = iter(self.batches), done, 0
        clock.resume()
        while done != self.budget.steps:
            step = done
            self._set_rate(step)
            result = self.step(
                self._micro_batches(stream),
                freeze_flow=step < train.freeze_flow_steps,
                notices=self._notices(),
            )
            done = step + 1
            bad = self._count(result, step, bad)
            self.budget.add(clock.step())
            if "measured" in result.notices:
                self._settle(done)
            last, stop = done == self.budget.steps, "stop" in result.notices
            if self.rank == 0 and (done % train.log_every == 0 or last or done == first + 1):
                self._log(done, result)
            self._record_saves(self.schedule.ended())
            if last or (self._is_due(done) and not stop):
                self._validate(done)
            if last or stop:
                self._record_saves(self.schedule.save_with_retries(done))
                return done, not last
            if done % train.checkpoint_every == 0 or {"save", "measured"} & result.notices:
                self._save(done)
            if "look" in result.notices:
                self._check_preemption()
            clock.resume()
        return done, False

    def _is_due(self, done: int) -> bool:
        """Return whether to validate the weights after `done` steps."""
        return self.budget.is_due(done, self.validated)

    def _settle(self, done: int) -> None:
        """Set the number of steps from the time of the steps so far."""
        self.link.tick("setting the number of steps")
        self.budget.settle(done, self.device)
        steps, pace = self.budget.steps, self.budget.pace
        assert steps is not None and pace is not None
        self.inputs.end_at(self.batches, steps)
        if self.rank == 0:
            self._record("measured", done, steps=steps, step_s=pace.wall, step_cpu_s=pace.cpu)

    def _micro_batches(self, stream: Iterator[MicroBatch]) -> Iterator[MicroBatch]:
        """Yield the micro-batches of a step; tick for each of them."""
        for _ in range(self.inputs.layout.accumulation):
            self.link.tick("waiting for data")
            batch = next(stream)
            self.link.tick("training")
            yield batch
        self.link.tick("ending a step")

    def _notices(self) -> dict[str, bool]:
        """Return what rank 0 wants all ranks to do after this step."""
        if self.rank != 0:
            return {"stop": False, "save": False, "look": False, "measured": False}
        now = time.monotonic()
        return {
            "stop": self.link.stop,
            "save": self.schedule.wanted,
            "look": now > self.next_check,
            "measured": self.budget.measured,
        }

    def _check_preemption(self) -> None:
        """Ask Ray whether a node will be taken away; if so, save as often as storage allows."""
        self.next_check = time.monotonic() + LOOK_SECONDS
        notice = ray.train.get_preemption_info()
        if notice is None or self.schedule.hurried:
            return
        self.schedule.hurry()
        if self.rank == 0:
            self.link.warn(
                f"Ray takes away the node of rank {', '.join(map(str, notice.preempted_ranks))}"
                + ("" if notice.deadline_ms is None else f" at {_clock(notice.deadline_ms / 1e3)}")
                + ": saving as often as storage allows until then"
            )

    def _set_rate(self, step: int) -> None:
        """Set the learning rate of a step.

        While the number of steps is unknown, the rate is that of an endless run: the warm-up, and
        then the first rate of the schedule.
        """
        train = self.config.train
        rate = learning_rate(
            step,
            steps=self.budget.steps or sys.maxsize,
            lr=train.lr,
            schedule=train.schedule,
            warmup_steps=train.warmup_steps,
            min_lr=train.min_lr,
            milestones=train.milestones,
        )
        set_learning_rate(self.learner.optimizer, rate)

    def _count(self, result: StepResult, step: int, bad: int) -> int:
        """Update the average after a step, or count a skipped one; return the skipped in a row.

        Raises ResourceError after more than `train.max_bad_steps` skipped steps in a row.
        """
        if result.stepped:
            if self.learner.average is not None:
                self.learner.average.update()
            return 0
        self.skipped += 1
        logger.warning("step %d skipped: loss %s, norm %s", step, result.loss, result.grad_norm)
        if bad + 1 > self.config.train.max_bad_steps:
            raise ResourceError(
                "loss or gradients are not finite",
                where=f"steps {step - bad + 1} to {step + 1}, samples {self.inputs.names(step)}",
                got=f"loss {result.loss}, gradient norm {result.grad_norm}",
                expected=f"at most {self.config.train.max_bad_steps} such steps in a row",
                fix="lower train.lr, set train.clip_norm, or look at the samples",
            )
        return bad + 1

    def _record(self, kind: str, step: int, **fields: Any) -> None:
        """Write a record to the metrics log and send it to the driver (rank 0)."""
        self.link.post(self.metrics_log.write(kind, step, **fields))

    def _log(self, done: int, result: StepResult) -> None:
        taken, rates = self.clock.take(), learning_rates(self.learner.optimizer)
        self._record(
            "train",
            done,
            loss=result.loss,
            terms=result.terms,
            lr=rates.get("main"),
            lr_flow=rates.get("flow"),
            grad_norm=result.grad_norm,
            samples_per_s=taken.steps * self.config.train.batch / taken.seconds,
            step_s=taken.seconds / taken.steps,
            data_wait=taken.waited / taken.seconds,
            memory_gb=memory_gb(self.device),
            skipped=self.skipped,
            spent_s=self.clock.spent.wall,
            spent_cpu_s=self.clock.spent.cpu,
            elapsed_s=time.time() - self.started,
        )

    def _validate(self, done: int) -> None:
        """Validate the averaged weights (the weights, if there is no average); save a new best."""
        self.link.tick("validating")
        with self.learner.final_weights() as model:
            figures, picture = self.task.validate(
                model,
                self.config.data.val_split,
                device=self.device,
                autocast=self.step.autocast(),
                alive=self.link.tick,
            )
        self.validated = done
        judged = self.task.judged
        improved = self.best is None or self.task.improves(figures[judged], self.best[0])
        if improved:
            self.best = (figures[judged], done)
        assert self.best is not None
        if self.rank == 0:
            best, share = {f"best_{judged}": self.best[0]}, self.budget.share(done)
            self._record("val", done, **figures, **best, share=share)
            assert picture is not None
            self.metrics_log.picture(self.task.shown, done, picture)
        if improved:
            self._save(done)

    def _describe(self) -> tuple[dict[str, Any], int | None]:
        """Return the facts to store in a checkpoint now, and the step of the best checkpoint."""
        facts = {
            "config": self.config.model_dump(mode="json"),
            "fingerprint": self.task.fingerprint,
            "best": self.best,
            "skipped": self.skipped,
            "validated": self.validated,
            "steps": self.budget.steps,
            "pace": self.budget.pace,
            "spent": self.clock.spent,
            "elapsed_s": time.time() - self.started,
        }
        return facts, self.best[1] if self.best else None

    def _save(self, done: int) -> None:
        """Start a checkpoint, unless this step has one."""
        if not self.schedule.has(done):
            self.schedule.save(done)

    def _publish(self) -> None:
        """Publish the metrics so far, before the checkpoint is written."""
        if self.rank == 0:
            self.metrics_log.publish()

    def _record_saves(self, saves: list[SaveResult]) -> None:
        """Record the saves that succeeded."""
        if self.rank != 0:
            return
        for saved in saves:
            if saved.error is None:
                blocked = self.schedule.blocked_s
                self._record("saved", saved.step, seconds=saved.seconds, blocked_s=blocked)

    def _export(self, done: int) -> None:
        """Write the final weights on rank 0; wait while storage is full or unavailable."""
        with self.learner.final_weights() as model:
            weights = full_weights(model)
        if self.rank == 0:
            metadata = export_metadata(self.config, done)
            patience = self.config.train.storage_timeout_s
            with self.link.patient("waiting for storage", patience):
                write_export_surely(
                    *(self.run_folder, EXPORT, weights, metadata),
                    timeout_s=patience,
                    failing=lambda error: self.link.warn(f"cannot write the weights yet: {error}"),
                )
        dist.barrier()


def _clock(seconds: float) -> str:
    """Format a time (seconds since 1970) as a local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))
