"""A sweep from the driver's side: checks, trials through Ray Tune, and a report.

In: a configuration with a `sweep`. Out, in `<run.root>/<run.name>`:

    sweep.json                     what the sweep is; it continues only as the same
    trials/<name>/                 a run folder each, with trial.json and result.json
    results.{csv,json} report.html best.yaml best/      (`vrtspike.tuning.{tables,report}`)

Ray Tune starts the trials and cuts them short; what a sweep is made of, and what is done, is kept
in those files by us. So the same command finishes a sweep that was stopped in any way, a trial
continues from its own checkpoints, and nothing depends on a snapshot of Tune's objects.
"""

from __future__ import annotations

import logging
from typing import Any

from ray import tune
from ray._common.constants import HEAD_NODE_RESOURCE_NAME

from vrtspike.config.config import Config
from vrtspike.datasets.index import open_dataset
from vrtspike.errors import DataFormatError
from vrtspike.metrics.perceptual import LPIPS
from vrtspike.runs.actor_lock import claim
from vrtspike.runs.folder import only_one, run_folder
from vrtspike.runtime.progress import Progress
from vrtspike.runtime.ray_session import capacity, resolve_paths
from vrtspike.runtime.ray_thread import RayThread
from vrtspike.runtime.shared_folder import check_nodes_see, marker
from vrtspike.samples.shards import MANIFEST
from vrtspike.storage.folder import Folder
from vrtspike.training.driver import StopRequest, ensure_data, nodes_may_go, stop_on_signals
from vrtspike.tuning.capacity import Capacity, room_for_trials
from vrtspike.tuning.checks import check_space
from vrtspike.tuning.comparison import compare_best
from vrtspike.tuning.identity import check_same_sweep
from vrtspike.tuning.report import write_report
from vrtspike.tuning.space import sweep_of
from vrtspike.tuning.summary import Summary, read_summary
from vrtspike.tuning.tables import write_results
from vrtspike.tuning.trial import TrialRun
from vrtspike.tuning.tune_searcher import TuneSearcher, name_of

logger = logging.getLogger(__name__)

ENVIRONMENT = {
    # Nothing of Tune's own bookkeeping is kept.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    # One progress line, ours; Tune's tables are not wanted, even with verbose=0.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # A trial that is cut short saves first (`TrialRun.cleanup`).
    "TUNE_FORCE_TRIAL_CLEANUP_S": "330",
}
"""Ray Tune's environment; a user's own values stay."""

LOST_TRIALS = 8
"""How often a trial whose process was lost (with its node, say) is started again."""
POLL_SECONDS = 0.5


class SweepLock:
    """The actor by which a sweep's folder is claimed."""


def run_sweep(config: Config) -> tuple[Folder, Summary]:
    """Run, or finish, the sweep that a configuration describes; return its folder and what its
    trials came to.

    Raises SystemExit when SIGTERM or Ctrl-C stopped it; the same command goes on from there.
    """
    config = resolve_paths(config)
    folder = run_folder(config.run)
    manifest = ensure_data(config)
    check_space(config, manifest)
    _check_scoring(config)
    room = room_for_trials(config, capacity(config.run))
    with only_one(folder):
        held = claim(folder, SweepLock)
        _check_nodes(config, folder)
        check_same_sweep(config, manifest, folder)
        searcher = TuneSearcher(config, folder, room.trials, manifest)
        if not searcher.trial_queue.finished:
            with stop_on_signals() as stopping:
                _follow(searcher, room, stopping)
            if stopping.signal is not None and not searcher.trial_queue.finished:
                name = stopping.signal.name
                logger.warning("stopped by %s; the same command continues the sweep", name)
                raise SystemExit(128 + stopping.signal)
        summary = _report(searcher)
        write_report(folder, summary, *compare_best(summary, folder))
        del held
    return folder, summary


def _report(searcher: TuneSearcher) -> Summary:
    """Write what the trials came to by now, without pictures."""
    summary = read_summary(searcher.config, searcher.folder, searcher.trial_queue.count)
    write_results(searcher.folder, summary)
    write_report(searcher.folder, summary, [], {})
    return summary


def _report_so_far(searcher: TuneSearcher) -> None:
    """Renew the report while trials go on; that it cannot be written now holds nothing up."""
    try:
        _report(searcher)
    except DataFormatError as error:
        logger.warning("the report is behind: %s", error)


def _check_scoring(config: Config) -> None:
    """Check that trained models can be scored, which comes hours later."""
    if sweep_of(config).cost:
        return
    dataset = open_dataset(config.data.source, config.data.layout)
    dataset.sequences(config.evaluation.split)
    if config.evaluation.lpips:
        LPIPS(config.loss.weights_dir)


def _check_nodes(config: Config, folder: Folder) -> None:
    """Check that all nodes see what trials read and write."""
    mark = marker(folder)
    wanted = {"run.root": (folder, mark), "data.shards": (Folder.at(config.data.shards), MANIFEST)}
    if not sweep_of(config).cost:
        # Trials are scored on whole frames of the dataset.
        wanted["data.source"] = (Folder.at(config.data.source), "")
    if config.loss.weights_dir is not None:
        wanted["loss.weights_dir"] = (Folder.at(config.loss.weights_dir), "")
    try:
        check_nodes_see(wanted)
    finally:
        folder.remove(mark)


def _follow(searcher: TuneSearcher, room: Capacity, stopping: StopRequest) -> None:
    """Run the trials and follow them on the progress line."""
    fit = RayThread("ray-tune", ENVIRONMENT, lambda storage: _tuner(searcher, room, storage))
    with Progress(f"tune {searcher.config.run.name}") as progress:
        workers, queue = searcher.config.train.workers, searcher.trial_queue
        progress.say(
            f"{queue.count} trials at most, {len(queue.rows)} of them done; "
            f"{room.trials} at a time, {workers} worker{'s' * (workers > 1)} each"
        )
        while True:
            over = not fit.is_alive()
            if stopping.signal is not None or searcher.stopping:
                searcher.stop()
            lines = list(searcher.news())
            for line in lines:
                progress.say(line)
            if lines:
                _report_so_far(searcher)
            shown = searcher.shown
            progress.update(shown.done, shown.total, **shown.fields)
            if over:
                break
            fit.join(POLL_SECONDS)
    if searcher.trouble is not None:
        raise searcher.trouble
    if fit.error is not None:
        raise fit.error


def _tuner(searcher: TuneSearcher, room: Capacity, storage: str) -> Any:
    """Build Ray Tune's tuner."""
    trial = tune.with_parameters(
        TrialRun,
        base=searcher.config,
        folder=searcher.folder.where,
        resources=room.share,
        scored=not sweep_of(searcher.config).cost,
        preemptible=nodes_may_go(searcher.config),
    )
    return tune.Tuner(
        # The trial's own process only waits, on the head node, which is not taken away; its workers
        # ask for what they need.
        tune.with_resources(trial, {HEAD_NODE_RESOURCE_NAME: 0.001}),
        tune_config=tune.TuneConfig(
            num_samples=-1,
            reuse_actors=True,
            search_alg=searcher,
            scheduler=searcher.scheduler,
            trial_name_creator=name_of,
            trial_dirname_creator=name_of,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=storage,
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=LOST_TRIALS),
        ),
    )
