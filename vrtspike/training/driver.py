"""The driver of a training run: it prepares data, checks settings, starts workers, shows progress.

`run_training` renders and prepares missing data, rejects impossible settings before any worker
starts, runs `run_worker` on every rank through Ray Train, and shows a progress line meanwhile. The
caller has already joined or started Ray (`vrtspike.runtime.ray_session.connect`).

A restart needs nothing from Ray Train: checkpoints are our own and lie in the run's folder. Ray
Train's storage is a temporary folder, removed at the end. The supervisor, not Ray Train, limits the
number of failures: it counts failures since the last checkpoint.

On SIGTERM or Ctrl-C, the supervisor asks the workers to save after the current step. Starting a run
of the same name continues from there.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import Any

from vrtspike.checkpoints.manifest import newest
from vrtspike.config.config import Config
from vrtspike.config.loader import dump_config
from vrtspike.datasets.info import INFO_FILE
from vrtspike.errors import ResourceError
from vrtspike.runs.actor_lock import claim
from vrtspike.runs.export import exported_step
from vrtspike.runs.folder import (
    WorkerPlan,
    checkpoints_of,
    collective_timeout_s,
    only_one,
    run_folder,
)
from vrtspike.runs.metrics_log import Record
from vrtspike.runs.paths import CONFIG, EXPORT
from vrtspike.runtime.progress import Progress
from vrtspike.runtime.ray_session import capacity, resolve_paths
from vrtspike.runtime.ray_thread import RayThread
from vrtspike.samples.shards import MANIFEST, Manifest, read_manifest
from vrtspike.storage.folder import Folder, local_path
from vrtspike.training.budget import pace_in, steps_of
from vrtspike.training.preflight import check_data, check_model_and_loss, check_resume, data_cpus
from vrtspike.training.supervisor import Supervisor, Update
from vrtspike.training.task import Task
from vrtspike.training.tasks import task_of

logger = logging.getLogger(__name__)

ENVIRONMENT = {
    # How often Ray Train polls its workers. Its default of 2 s would delay every start and end.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # Do not change the working folder of workers; all paths are absolute.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
}
"""Environment variables for Ray Train; values that the user has set win."""

WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
STATE_TRACKING = "RAY_TRAIN_ENABLE_STATE_TRACKING"
"""Two features of Ray Train that cost one actor each and help on clusters only: notices that a node
will be taken away, and the training page of Ray's dashboard."""
POLL_SECONDS = 0.3


def train_worker(arguments: dict[str, Any]) -> None:
    """Run one rank. The import is inside, so that only workers, not the driver, load it."""
    from vrtspike.training.worker import run_worker

    run_worker(arguments["plan"], arguments["supervisor"])


def run_training(
    config: Config,
    *,
    resources: Mapping[str, float] | None = None,
    stopping: StopRequest | None = None,
    heard: Callable[[Record], None] | None = None,
    preemptible: bool | None = None,
) -> Folder:
    """Start or continue a training run; return the run's folder.

    `resources`: the part of the cluster that the run may use (default: all of it).
    `stopping`: set its `signal` to stop the run; if it is None, SIGTERM and Ctrl-C stop it. A
    stopped run raises SystemExit.
    `heard`: called with every record of metrics.jsonl when it is written.
    `preemptible`: whether nodes may be taken away (default: the result of `nodes_may_go`).

    Raises ConfigError, ResourceError or CheckpointError if the run cannot start or go on.
    """
    config = resolve_paths(config)  # Ray's workers may run in other working folders
    run = run_folder(config.run)
    if not run.remote and run.path.exists() and not run.path.is_dir():
        raise ResourceError("the run's folder is a file", where=run)
    if config.train.task == "restore":
        check_data(config, ensure_data(config))
    resumed = check_resume(config, task_of(config), run)
    if _finished(run, config) and resumed == exported_step(run, EXPORT):
        logger.info("run %s is complete", config.run.name)
        return run

    cpus = data_cpus(config, capacity(config.run) if resources is None else resources)
    check_model_and_loss(config)
    following = stop_on_signals() if stopping is None else nullcontext(stopping)
    with only_one(run), following as stopped:
        supervisor = _start_supervisor(config, run)
        run.write(CONFIG, dump_config(config).encode())
        may_go = nodes_may_go(config) if preemptible is None else preemptible
        plan = WorkerPlan(config, run, cpus, preemptible=may_go)
        _train(plan, supervisor, stopped, heard)
    if not _finished(run, config):
        # No signal here: another process asked the supervisor to stop.
        by = stopped.signal or signal.SIGTERM
        logger.warning("stopped by %s; the same command continues the run", by.name)
        raise SystemExit(128 + by)
    return run


def ensure_data(config: Config) -> Manifest:
    """Return the manifest of the shards; if they are missing, render and prepare them first."""
    data = config.data
    if Folder.at(data.shards).size(MANIFEST) is None:
        from vrtspike.samples.prepare import prepare_data

        scenes = config.rendered
        if scenes is not None and Folder.at(data.source).size(INFO_FILE) is None:
            from vrtspike.simulate.on_ray import simulate_scenes

            with Progress("simulate") as progress:
                out = local_path(data.source, "rendered scenes")
                simulate_scenes(scenes, config.camera, out, progress.update)
        with Progress("prepare") as progress:
            prepare_data(data, progress.update)
    return read_manifest(data.shards)


def _start_supervisor(config: Config, run: Folder) -> Any:
    """Start the run's supervisor; its unique name stops other jobs from training the same run."""
    return claim(
        run,
        Supervisor,
        max_failures=config.run.max_failures,
        hang_timeout_s=config.train.hang_timeout_s,
        start_timeout_s=config.train.start_timeout_s,
    )


def nodes_may_go(config: Config) -> bool:
    """Return whether Ray may take nodes away: on a cluster yes, in a local Ray no."""
    import ray

    wish = os.environ.get(WATCHER)
    if wish is not None:
        return wish.lower() in ("1", "true")
    grows = config.run.cluster_cpus is not None or config.run.cluster_gpus is not None
    joined = "RAY_ADDRESS" in os.environ
    return joined or grows or len(ray.nodes()) > 1  # type: ignore[no-untyped-call]


def _train(
    plan: WorkerPlan, supervisor: Any, stopping: StopRequest, heard: Callable[[Record], None] | None
) -> None:
    """Run the workers and show their progress; raise the error that ended them early, if any."""
    import ray

    on_cluster = str(int(plan.preemptible))
    environment = ENVIRONMENT | {WATCHER: on_cluster, STATE_TRACKING: on_cluster}
    fit = RayThread("ray-train", environment, lambda storage: _trainer(plan, supervisor, storage))
    task = task_of(plan.config)
    stop_sent, ended = False, Update()
    try:
        with Progress(f"train {plan.config.run.name}", steps_of(plan.config.train)) as progress:
            while True:
                over = not fit.is_alive()
                if stopping.signal is not None and not stop_sent:
                    supervisor.ask_to_stop.remote()
                    stop_sent = True
                update: Update = ray.get(supervisor.take.remote())
                _show(update, progress, task)
                if heard is not None:
                    for record in update.records:
                        heard(record)
                ended.refusal = ended.refusal or update.refusal
                ended.given_up = ended.given_up or update.given_up
                if over or update.given_up is not None or update.deserted:
                    break
                fit.join(POLL_SECONDS)
    finally:
        ray.kill(supervisor)
    if ended.refusal is not None:
        raise ended.refusal
    if ended.given_up is not None:
        raise ended.given_up
    if fit.error is not None:
        raise fit.error


def _trainer(plan: WorkerPlan, supervisor: Any, storage: str) -> Any:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import FailureConfig

    train = plan.config.train
    workers: Any = train.workers
    if train.min_workers is not None and train.min_workers < train.workers:
        workers = (train.min_workers, train.workers)
    return TorchTrainer(
        train_worker,
        train_loop_config={"plan": plan, "supervisor": supervisor},
        torch_config=TorchConfig(
            backend="nccl" if train.gpu else "gloo",
            # Longer than the supervisor needs to find and name the rank that hangs.
            timeout_s=collective_timeout_s(train),
        ),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=train.gpu,
            resources_per_worker={"CPU": train.cpus_per_worker}
            | ({"GPU": 1.0} if train.gpu else {}),
        ),
        run_config=RunConfig(
            name=plan.config.run.name.replace("/", "-"),
            storage_path=storage,
            failure_config=FailureConfig(max_failures=-1, controller_failure_limit=-1),
        ),
    )


def _finished(run: Folder, config: Config) -> bool:
    """Return whether the newest checkpoint of a run is that of its last step."""
    saved, _ = newest(checkpoints_of(run), content=False)
    return saved is not None and saved.step == steps_of(config.train, pace_in(saved.facts))


@dataclass
class StopRequest:
    """The signal that asked the run to save and end, or None; set by a handler or a thread."""

    signal: signal.Signals | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Inside the block, store SIGTERM and the first Ctrl-C instead of ending at once."""
    stopping = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        if stopping.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        stopping.signal = signal.Signals(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(update: Update, progress: Progress, task: Task) -> None:
    """Show an update on the progress line."""
    for text in update.warnings:
        logger.warning("%s", text)
    for record in update.records:
        match record["kind"]:
            case "train":
                progress.update(record["step"], None, **_train_fields(record))
            case "val":
                name, form = task.judged_as
                progress.update(progress.done, None, **{name: form.format(record[task.judged])})
            case "start":
                progress.total = record["steps"]
                for problem in record["passed_over"]:
                    logger.warning("passed over a checkpoint: %s", problem)
            case "measured":
                progress.total = record["steps"]
                progress.say(
                    f"{record['steps']:,} steps of {record['step_s']:.3g} s, in CPU time "
                    f"{record['step_cpu_s']:.3g} s"
                )


def _train_fields(record: Record) -> dict[str, object]:
    """Return what the progress line shows of a training record."""
    fields: dict[str, object] = {
        "loss": record["loss"],
        "samples/s": f"{record['samples_per_s']:.3g}",
        "data wait": f"{record['data_wait']:.0%}",
        "memory": f"{record['memory_gb']:.1f} GB",
    }
    if record["skipped"]:
        fields["skipped"] = record["skipped"]
    return fields
