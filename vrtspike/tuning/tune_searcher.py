"""The searcher of a sweep: hands its trials to Ray Tune and writes down what they come to.

Ray Tune asks for trials (`suggest`), passes on what they report (`on_trial_result`), and says when
they end. The driver's main thread reads `shown` and `news`, and calls `stop`.
"""

from __future__ import annotations

import json
import math
import queue
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from vrtspike.config.config import Config
from vrtspike.errors import ResourceError, VrtSpikeError
from vrtspike.runs.actor_lock import claimed
from vrtspike.samples.shards import Manifest
from vrtspike.storage.folder import Folder
from vrtspike.tuning.checks import Possible
from vrtspike.tuning.schedule import scheduler_of
from vrtspike.tuning.search import search_of
from vrtspike.tuning.space import said, sweep_of
from vrtspike.tuning.trial_queue import TrialQueue
from vrtspike.tuning.trial_results import (
    Trial,
    TrialResult,
    folder_of,
    read_curve,
    read_rows,
    read_trials,
    row_of,
    write_row,
    write_trial,
)

LOST = "the trial's process was lost, or could not start, again and again"


@dataclass(frozen=True)
class Shown:
    """What the progress line shows: steps (or seconds) done and in all, and fields."""

    done: int
    total: int
    fields: Mapping[str, object]


class TuneSearcher(Searcher):
    """Hand out trials, at most so many at a time, and keep the rows of those that ended."""

    def __init__(self, config: Config, folder: Folder, room: int, manifest: Manifest) -> None:
        super().__init__()
        self.config, self.folder, self._room = config, folder, room
        sweep = sweep_of(config)
        rows = read_rows(folder)
        self.trial_queue = TrialQueue(
            config,
            search_of(sweep, Possible(config, manifest)),
            begun=read_trials(folder),
            rows=rows.values(),
        )
        self.scheduler = scheduler_of(config)
        for row in rows.values():
            if row.trial.arm == "search" and not sweep.cost:
                records = [r for r in read_curve(folder, row) if r["kind"] == "val"]
                self.scheduler.learn(row.trial.name, records, whole=row.state == "done")
        self._live: dict[str, Trial] = {}
        self._done: dict[str, float] = {}
        """How much of its run each live trial has done, as a share."""
        self.stopping = False
        """Whether nothing more is started, and what runs is asked to stop."""
        self.trouble: Exception | None = None
        """What ended the sweep before its end."""
        self._news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._show()

    def stop(self) -> None:
        """Start nothing more, and have what runs save and end."""
        self.stopping = True
        for trial in list(self._live.values()):
            self._ask_to_stop(trial)

    def _ask_to_stop(self, trial: Trial) -> None:
        supervisor = claimed(folder_of(self.folder, trial.name))
        if supervisor is not None:
            supervisor.ask_to_stop.remote()

    def news(self) -> Iterator[str]:
        """Yield a line for each trial that ended since the last call."""
        while not self._news.empty():
            yield self._news.get()

    def __getstate__(self) -> dict[str, Any]:
        """Keep out of Tune's snapshots, which nobody reads."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Return a trial to start; None: not now."""
        if self.stopping or self.trial_queue.finished:
            return Searcher.FINISHED
        if len(self._live) >= self._room:
            return None
        trial = self.trial_queue.next()
        if trial is None:
            return None
        write_trial(self.folder, trial)
        self._live[trial_id] = trial
        if trial.arm == "search":
            self.scheduler.searched.add(trial_id)
        self._show()
        return {"trial": json.dumps(asdict(trial))}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Hear how far a trial is."""
        if trial_id in self._live:
            steps = result["of_steps"]
            self._done[trial_id] = row_of(result["row"]).steps / steps if steps else 0.0
            self._show()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Write down what a trial came to; one that was asked to stop is to go on later."""
        trial = self._live.pop(trial_id, None)
        self._done.pop(trial_id, None)
        if trial is None:
            return
        facts = {} if result is None else result
        row = row_of(facts["row"]) if "row" in facts else TrialResult(trial, "stopped")
        try:
            if trial_id in self.scheduler.stopped:
                # Tune may keep its process for a while; what it holds is wanted by others.
                self._ask_to_stop(trial)
                self._end(replace(row, state="stopped"))
            elif error:
                self._end(replace(row, state="failed", error=LOST))
            elif facts.get("ended"):
                self._end(row)
            else:
                self.trial_queue.put_back(trial)
                if "trouble" in facts:
                    raise ResourceError(f"{trial.name} cannot go on now: {facts['trouble']}")
        except VrtSpikeError as problem:
            # Tune would take it for the trial's, and run that again.
            self.trouble, self.stopping = self.trouble or problem, True
        self._show()

    def _end(self, row: TrialResult) -> None:
        """Write a trial's row."""
        write_row(self.folder, row)
        self.trial_queue.end(row)
        ended = len(self.trial_queue.rows)
        self._news.put(f"[{ended}/{self.trial_queue.count}] {line_of(row)}")

    def _show(self) -> None:
        """Renew what the progress line shows: steps, or seconds where trials have equal time."""
        train, count = self.config.train, self.trial_queue.count
        each = train.steps if train.minutes is None else math.ceil(60 * train.minutes)
        # One that was cut short has done its part.
        done = round((len(self.trial_queue.rows) + sum(self._done.values())) * each)
        trials = f"{len(self.trial_queue.rows)}/{count}"
        self.shown = Shown(done, count * each, {"trials": trials, "running": len(self._live)})


def name_of(trial: TuneTrial) -> str:
    """Return the name of a trial of Ray Tune's."""
    return str(json.loads(trial.config["trial"])["name"])


def line_of(row: TrialResult) -> str:
    """Write a row on one line."""
    parts = [row.trial.name, said(row.trial.settings)]
    match row.state:
        case "failed":
            parts.append(f"failed: {row.error}")
        case "stopped":
            parts.append(f"stopped at step {row.steps}")
    if row.val_psnr is not None:
        parts.append(f"{row.val_psnr:.2f} dB (val)")
    if row.psnr is not None:
        parts.append(f"{row.psnr:.2f} dB")
    if row.spent_s is not None and row.spent_cpu_s is not None:
        minutes, cpu_minutes = row.spent_s / 60, row.spent_cpu_s / 60
        parts.append(f"{row.steps:,} steps in {minutes:.3g} min ({cpu_minutes:.3g} CPU min)")
    if row.step_s is not None:
        parts.append(f"{row.step_s:.3g} s/step")
    if row.memory_gb is not None:
        parts.append(f"{row.memory_gb:.2g} GB")
    return "  ".join(parts)
