"""The best of a sweep against the baseline, frame by frame: scores, a report and pictures.

Runs as a task where there is room (and a GPU, if trials used one). Out: `best/` in the sweep's
folder, as `vrtspike evaluate` writes it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import ray

from vrtspike.config.config import Config
from vrtspike.evaluation.results import Panel
from vrtspike.storage.folder import Folder
from vrtspike.tuning.summary import Summary
from vrtspike.tuning.trial import room_to_score, scoring_device
from vrtspike.tuning.trial_results import folder_of

BEST = "best"


def compare_best(summary: Summary, folder: Folder) -> tuple[list[Panel], dict[str, str]]:
    """Evaluate the first run of the best combination and of its baseline.

    Returns the panels to look at, and what the evaluation ran on.
    """
    best = summary.best
    if best is None or summary.cost or not best.baselines:
        return [], {}
    chosen = {"baseline": best.baselines[0], "fused": best.rows[0]}
    runs = {name: folder_of(folder, row.trial.name) for name, row in chosen.items()}
    task = _evaluate.options(**room_to_score(summary.config.train))
    found: tuple[list[Panel], dict[str, str]] = ray.get(
        task.remote(summary.config, runs, folder.below(BEST))
    )
    return found


@ray.remote
def _evaluate(
    config: Config, runs: Mapping[str, Folder], out: Folder
) -> tuple[list[Panel], dict[str, str]]:
    """Evaluate runs into a folder."""
    from vrtspike.report.evaluation import environment, run_evaluation
    from vrtspike.restoration.restorer import Restorer, fetched

    device = scoring_device(config.train)
    with ExitStack() as stack:
        here = {name: stack.enter_context(fetched(run)) for name, run in runs.items()}
        written = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vrtspike-")))
        models = {name: Restorer.load(run, device) for name, run in here.items()}
        results = run_evaluation(config, models, written, runs=here, device=device)
        for path in sorted(written.rglob("*")):
            if path.is_file():
                out.write(path.relative_to(written).as_posix(), path.read_bytes())
    return results.panels, environment(device)
