"""One trial of a sweep: a Ray Train run inside an actor of Ray Tune, and its scores.

Tune asks `step` for what happened; the run itself (`run_training`) goes on in a thread, on workers
of its own, as it would outside a sweep. A trial that is started again, by Tune or by a later sweep,
continues its run and first tells what it had reached before.

Reports are dictionaries: `row` (the `TrialResult` so far as `row_text`, its state `stopped`),
`of_steps` (steps of the whole run, where that is known), `validated` (whether this report is one of
a validation), `replayed` (whether it is one from before this start), and at the end `done`: with
`ended` (the row is the trial's last), with `trouble` (of the cluster or of storage: the trial is to
go on later), or, when the run was asked to stop, with neither.
"""

from __future__ import annotations

import json
import queue
import signal
import statistics
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray
import torch
from ray import tune

from vrtspike.config.config import Config
from vrtspike.config.train import TrainSettings
from vrtspike.errors import NoRoomError, StorageError, named_line
from vrtspike.runs.folder import run_folder
from vrtspike.runs.metrics_log import Record, read_metrics
from vrtspike.runtime.refusal import configure_logging, find_our_error
from vrtspike.storage.folder import Folder
from vrtspike.training.driver import StopRequest, run_training
from vrtspike.tuning.trial_results import Trial, TrialResult, row_text

LOOK_SECONDS = 2.0
"""How often Tune hears of a trial in which nothing is validated."""
STOP_SECONDS = 300.0
"""How long a run that is cut short may take to save."""


class TrialRun(tune.Trainable):
    """Run one trial; `config["trial"]` is a `Trial` as JSON."""

    def setup(  # type: ignore[override]  # Tune's `with_parameters` passes the others
        self,
        config: dict[str, Any],
        *,
        base: Config,
        folder: str,
        resources: Mapping[str, float],
        scored: bool,
        preemptible: bool,
    ) -> None:
        """Take what all trials share: the sweep's configuration and folder, a trial's part of the
        cluster, whether it is to be scored, and whether nodes may be taken away; start the first
        one."""
        configure_logging(debug=False)
        self._base, self._folder = base, Folder(folder)
        self._resources, self._scored, self._preemptible = resources, scored, preemptible
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial in this process, which saves seconds of starting a new one; False:
        the one before does not end."""
        self.cleanup()
        if self._thread.is_alive():
            return False
        self._start(new_config)
        return True

    def _start(self, config: dict[str, Any]) -> None:
        """Start a trial's run."""
        trial = Trial(**json.loads(config["trial"]))
        self._config = trial.config(self._base, self._folder)
        self._heard: queue.SimpleQueue[Record] = queue.SimpleQueue()
        self._so_far = ResultSoFar(trial)
        self._stopping = StopRequest()
        self._last: dict[str, Any] = {}
        """What is known of a trial when it has ended: its state, and its scores or error."""
        self._trouble: dict[str, str] = {}
        before = read_metrics(run_folder(self._config.run))
        for record in before:
            self._heard.put(record)
        self._replayed = len(before)
        self._thread = threading.Thread(target=self._run, name="trial", daemon=True)
        self._thread.start()

    def step(self) -> dict[str, Any]:
        """Return what happened: at once after a validation, else after a while."""
        until = time.monotonic() + LOOK_SECONDS
        validated = replayed = False
        while not validated:
            over = not self._thread.is_alive()
            try:
                wait = 0.0 if over else max(0.0, until - time.monotonic())
                validated = self._so_far.add(self._heard.get(timeout=wait))
                replayed = self._replayed > 0
                self._replayed -= replayed
            except queue.Empty:
                if over:
                    return self._report(done=True, validated=False)
                break
        return self._report(validated=validated, replayed=replayed)

    def _report(self, *, done: bool = False, **facts: bool) -> dict[str, Any]:
        """Return the trial's row so far, or its last one, with some facts on this report."""
        row = replace(self._so_far.row, **(self._last if done else {}))
        ended = {"done": True, "ended": bool(self._last), **self._trouble} if done else {}
        return {"row": row_text(row), "of_steps": self._so_far.of_steps, **facts, **ended}

    def cleanup(self) -> None:
        """Have a run that is cut short save and end."""
        self._stopping.signal = signal.SIGTERM
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        """Train and score."""
        try:
            run = run_training(
                self._config,
                resources=self._resources,
                stopping=self._stopping,
                heard=self._heard.put,
                preemptible=self._preemptible,
            )
            scores = self._scores(run) if self._scored else {}
            self._last = {"state": "done", **scores}
        except SystemExit:
            pass  # asked to stop
        except BaseException as error:
            refusal = find_our_error(error)
            line = str(refusal or named_line(error))
            if isinstance(refusal, NoRoomError | StorageError):
                self._trouble = {"trouble": line}
            else:
                self._last = {"state": "failed", "error": line}

    def _scores(self, run: Folder) -> dict[str, float | None]:
        """Score the trained model where there is room for it."""
        task = score_run.options(**room_to_score(self._config.train))
        scores: dict[str, float | None] = ray.get(task.remote(self._config, run))
        return {name: scores[name] for name in ("psnr", "ssim", "lpips")}


class ResultSoFar:
    """What a trial has come to by now, from the records of its run."""

    def __init__(self, trial: Trial) -> None:
        self.of_steps: int | None = None
        """Steps of the whole run, where that is known."""
        self._row = TrialResult(trial, "stopped")
        self._step_s: list[float] = []
        self._validated = 0

    def add(self, record: Record) -> bool:
        """Take a record in; tell whether it is a validation that was not known."""
        step = record["step"]
        match record["kind"]:
            case "train":
                self._step_s.append(record["step_s"])
                self._row = replace(
                    self._row,
                    steps=step,
                    loss=record["loss"],
                    memory_gb=record["memory_gb"],
                    seconds=record["elapsed_s"],
                    spent_s=record["spent_s"],
                    spent_cpu_s=record["spent_cpu_s"],
                )
            case "start" | "measured":
                self.of_steps = record["steps"]
            case "val" if step > self._validated:
                self._validated = step
                self._row = replace(
                    self._row,
                    steps=step,
                    share=record["share"],
                    val_psnr=record["psnr"],
                    val_ssim=record["ssim"],
                )
                return True
        return False

    @property
    def row(self) -> TrialResult:
        """Return the trial's row so far."""
        if not self._step_s:
            return self._row
        return replace(self._row, step_s=statistics.median(self._step_s))


@ray.remote
def score_run(config: Config, run: Folder) -> dict[str, float | None]:
    """Score a run's exported weights on `evaluation.split`."""
    from vrtspike.datasets.index import open_dataset
    from vrtspike.evaluation.run import evaluate, fit_tile, scored_clips
    from vrtspike.restoration.restorer import Restorer, fetched

    device = scoring_device(config.train)
    dataset = open_dataset(config.data.source, config.data.layout)
    split = config.evaluation.split
    with fetched(run) as here:
        models = {"model": Restorer.load(here, device)}
        results = evaluate(
            dataset,
            split,
            models,
            fit_tile(config.evaluation, scored_clips(dataset, split, models), models),
            weights_dir=config.loss.weights_dir,
            device=device,
            with_controls=False,
        )
    return results.over_frames("model").as_dict()


def room_to_score(train: TrainSettings) -> dict[str, Any]:
    """Return what Ray is asked for to score trained models, outside the trial's own resources."""
    gpus = 1 if train.gpu else 0
    return {"num_cpus": 1, "num_gpus": gpus, "scheduling_strategy": "SPREAD", "max_retries": 3}


def scoring_device(train: TrainSettings) -> torch.device:
    """Return what trained models are scored on: what trained them, all its CPU threads in one."""
    if not train.gpu:
        torch.set_num_threads(train.workers * train.threads_per_worker)
    return torch.device("cuda" if train.gpu else "cpu")
