"""A training run from the driver's side: data, preflight, workers, progress, outcome.

`run_training` renders and prepares what is missing, refuses what cannot work before any worker
starts, runs `train_worker` on every rank through Ray Train, and shows one line while it does. The
caller has joined or started Ray (`vrtspike.cluster.connect`). Checkpoints are our own, in the run's
folder; Ray Train keeps nothing that a restart needs, so its storage is a folder that is removed.

SIGTERM or Ctrl-C asks the workers, through a note in the run's folder, to save after the step they
are in; the run of the same name goes on from there.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from vrtspike.cluster import resolve_paths
from vrtspike.config import dump_config
from vrtspike.data.info import INFO_FILE
from vrtspike.data.shards import MANIFEST, Manifest, read_manifest
from vrtspike.errors import ResourceError
from vrtspike.progress import Progress
from vrtspike.settings import Config
from vrtspike.storage import Folder, local_path, write_atomically
from vrtspike.training.checkpoint import checkpoint_steps
from vrtspike.training.folder import RunFolder, WorkerPlan
from vrtspike.training.journal import METRICS
from vrtspike.training.preflight import check_data, check_model_and_loss, check_resume, data_cpus

logger = logging.getLogger(__name__)

ENVIRONMENT = {
    # How often Ray Train looks at its workers: its default of 2 s is added to every start and end.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # Workers stay in the driver's folder; paths are absolute anyway.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""Ray Train's environment; a user's own values stay."""

CONTROLLER_FAILURES = 3
"""How often Ray Train may fail to start its workers; its default is without end."""
POLL_SECONDS = 0.3


def train_worker(arguments: dict[str, Any]) -> None:
    """Run one rank; what it needs is imported there, not in the driver."""
    from vrtspike.training.worker import run_worker

    run_worker(arguments["plan"])


def run_training(config: Config) -> Path:
    """Train, or continue, the run that a configuration describes; return its folder."""
    config = resolve_paths(config)  # Ray's workers run in folders of their own
    folder = RunFolder(config.run.root / config.run.name)
    if folder.path.exists() and not folder.path.is_dir():
        raise ResourceError("the run's folder is a file", where=folder.path)
    manifest = ensure_data(config)
    check_data(config, manifest)
    resumed = check_resume(config, manifest, folder)
    if resumed == config.train.steps and folder.export.is_file():
        logger.info("run %s is complete", config.run.name)
        return folder.path

    import ray

    cpus = data_cpus(config, ray.cluster_resources())  # type: ignore[no-untyped-call]
    check_model_and_loss(config)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.clear_notes()
    write_atomically(folder.config, dump_config(config).encode())
    with _stop_on_signals(folder) as stopping, _progress_line(config, folder):
        _fit(config, folder, cpus)
    failure = folder.reported_failure()
    if failure is not None:
        raise failure
    if stopping.signal is not None and not _finished(folder, config):
        logger.warning("stopped by %s; the same command continues the run", stopping.signal.name)
        raise SystemExit(128 + stopping.signal)
    return folder.path


def ensure_data(config: Config) -> Manifest:
    """Return the shards' manifest; render and prepare first where they are missing."""
    data = config.data
    if Folder.at(data.shards).size(MANIFEST) is None:
        from vrtspike.data.prepare import prepare_data

        scenes = config.rendered
        if scenes is not None and Folder.at(data.source).size(INFO_FILE) is None:
            from vrtspike.simulate.distributed import simulate_scenes

            with Progress("simulate") as progress:
                out = local_path(data.source, "rendered scenes")
                simulate_scenes(scenes, config.camera, out, progress.update)
        with Progress("prepare") as progress:
            prepare_data(data, progress.update)
    return read_manifest(data.shards)


def _fit(config: Config, folder: RunFolder, cpus: float) -> None:
    """Run the workers until they end or have failed too often."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import FailureConfig

    _quiet_ray_train()
    train = config.train
    for leftover in folder.path.glob(".ray-*"):
        # Of a driver that was killed.
        shutil.rmtree(leftover, ignore_errors=True)
    storage = Path(tempfile.mkdtemp(prefix=".ray-", dir=folder.path))
    try:
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"plan": WorkerPlan(config, str(folder.path), cpus)},
            torch_config=TorchConfig(backend="nccl" if train.gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=train.workers,
                use_gpu=train.gpu,
                resources_per_worker={"CPU": train.cpus_per_worker}
                | ({"GPU": 1.0} if train.gpu else {}),
            ),
            run_config=RunConfig(
                name="train",
                storage_path=str(storage),
                failure_config=FailureConfig(
                    max_failures=config.run.max_failures,
                    controller_failure_limit=CONTROLLER_FAILURES,
                ),
            ),
        )
        _outlive_signals(trainer.fit)
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def _outlive_signals(work: Callable[[], object]) -> None:
    """Run in a thread, where Ray cannot take the signals that ask for a stop; wait for the end."""
    failures: list[BaseException] = []

    def target() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=target, name="ray-train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_SECONDS)
    if failures:
        raise failures[0]


def _quiet_ray_train() -> None:
    """Leave Ray Train's log lines to its files."""
    for name in ("ray.train", "ray.tune", "ray.air"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _finished(folder: RunFolder, config: Config) -> bool:
    """Tell whether a run that was asked to stop had reached its end already."""
    return checkpoint_steps(folder.checkpoints)[:1] == [config.train.steps]


@dataclass
class _Stopping:
    """Which signal asked for the end, if any."""

    signal: signal.Signals | None = None


@contextmanager
def _stop_on_signals(folder: RunFolder) -> Iterator[_Stopping]:
    """Turn SIGTERM (and the first Ctrl-C) into the note that asks the workers to save and stop."""
    stopping = _Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        if stopping.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        stopping.signal = signal.Signals(number)
        folder.stop.touch()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        folder.stop.unlink(missing_ok=True)


@contextmanager
def _progress_line(config: Config, folder: RunFolder) -> Iterator[None]:
    """Show how far the workers are, as they note it in the run's metrics."""
    with Progress(f"train {config.run.name}", config.train.steps) as progress:
        over = threading.Event()
        tail = _Tail(folder.path / METRICS)

        def follow() -> None:
            while not over.wait(POLL_SECONDS):
                _show(tail.read(), progress)

        thread = threading.Thread(target=follow, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            _show(tail.read(), progress)


def _show(records: list[dict[str, Any]], progress: Progress) -> None:
    """Put new records on the progress line."""
    for record in records:
        match record["kind"]:
            case "train":
                progress.update(record["step"], None, **_train_fields(record))
            case "val":
                progress.update(progress.done, PSNR=f"{record['psnr']:.2f} dB")
            case "start":
                for problem in record["passed_over"]:
                    logger.warning("passed over a checkpoint: %s", problem)


def _train_fields(record: dict[str, Any]) -> dict[str, object]:
    """Choose what the line shows of a training record."""
    fields: dict[str, object] = {
        "loss": record["loss"],
        "samples/s": f"{record['samples_per_s']:.3g}",
        "data wait": f"{record['data_wait']:.0%}",
        "memory": f"{record['memory_gb']:.1f} GB",
    }
    if record["skipped"]:
        fields["skipped"] = record["skipped"]
    return fields


@dataclass
class _Tail:
    """Read the records that were added to a file since the last look, also when it is replaced."""

    path: Path
    _file: int | None = None
    _offset: int = 0
    _rest: bytes = field(default=b"")

    def read(self) -> list[dict[str, Any]]:
        """Return the new whole lines."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return []
        if stat.st_ino != self._file or stat.st_size < self._offset:
            self._file, self._offset, self._rest = stat.st_ino, 0, b""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            added = file.read()
        self._offset += len(added)
        *lines, self._rest = (self._rest + added).split(b"\n")
        return [json.loads(line) for line in lines if line]
