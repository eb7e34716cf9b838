"""What several training workers and checkpoints cost and give here.

    python benchmarks/scaling.py --config configs/demo.yaml

    weak      the samples of a worker stay as configured; efficiency = t(1) / t(N)
    apart     the same, and none talks to another: what the machine itself allows
    strong    the samples of a step stay; efficiency = t(1) / (N t(N))

with t the seconds of a step. Cases take turns, each in processes of its own, and an efficiency is
the median of those of the turns. Samples are noise in the configuration's shapes: no Ray and no
data pipeline take part. On CPUs each worker is bound to cores of its own, where there are enough;
`own cores` tells. Beside the bytes that a worker was seen to send in a step stand those that
`vrtspike describe` counts on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import uuid
from multiprocessing import get_context
from pathlib import Path

from torch.multiprocessing.spawn import start_processes

from figures import Row, show
from training_worker import Case, own_cores, work
from vrtspike.bench.describe import unbuilt
from vrtspike.bench.step_model import count_sent
from vrtspike.config.config import Config
from vrtspike.config.loader import load_config
from vrtspike.runtime.ray_session import resolve_paths
from vrtspike.storage.folder import Folder
from vrtspike.training.tasks import check_restores

IMPORTED_ONCE = ["vrtspike.bench.passes", "vrtspike.training.restore_task"]
"""What takes long to import, for all workers together."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what workers and checkpoints cost.")
    parser.add_argument("--config", required=True, help="configuration (YAML)")
    parser.add_argument("overrides", nargs="*", help="settings such as train.batch=4")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=4, help="timed steps of a turn")
    parser.add_argument("--turns", type=int, default=5, help="turns of each case")
    parser.add_argument("--tiny", action="store_true", help="only try whether it works")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    given = parser.parse_intermixed_args()
    config = resolve_paths(load_config(given.config, given.overrides))
    check_restores(config, "scaling")
    steps, turns = (1, 1) if given.tiny else (given.steps, given.turns)
    cases = cases_of(config, sorted(given.workers))
    found: dict[Case, list[list[Row]]] = {case: [] for case in cases}
    for _ in range(turns):
        for case in cases:
            found[case].append(run(config, case, steps))
    most = max(case.workers for case in cases)
    saving = run(
        config, Case("weak", most, most * cases[0].batch // cases[0].workers), steps, turns
    )
    tables = {"scaling": [scaled(config, case, found) for case in cases]}
    show({**tables, f"a checkpoint of {most} workers": saving[:1]}, given.json)


def cases_of(config: Config, workers: list[int]) -> list[Case]:
    """Return the cases of each kind."""
    train = config.train
    own, runs = train.micro_batch * train.accumulation, train.batch // train.micro_batch
    return [
        *(Case("weak", n, n * own) for n in workers),
        *(Case("apart", n, n * own) for n in workers if n > 1),
        *(Case("strong", n, train.batch) for n in workers if runs % n == 0),
    ]


def run(config: Config, case: Case, steps: int, turns: int = 0) -> list[Row]:
    """Return what each worker of a case found; with `turns`, what a checkpoint costs."""
    checkpoints = Folder.at(config.run.root).below(f"bench-scaling-{uuid.uuid4().hex[:8]}")
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED_ONCE)
    with tempfile.TemporaryDirectory(prefix="vrtspike-bench-") as folder:
        barrier = context.Barrier(case.workers)
        arguments = (config, case, steps, turns, folder, checkpoints, barrier)
        try:
            start_processes(work, arguments, case.workers, start_method="forkserver")  # type: ignore[no-untyped-call]
        finally:
            checkpoints.clear()
        files = [Path(folder) / f"{number}.json" for number in range(case.workers)]
        return [json.loads(file.read_text()) for file in files]


def scaled(config: Config, case: Case, found: dict[Case, list[list[Row]]]) -> Row:
    """Evaluate the turns of a case, beside those of the fewest workers."""
    kind = "weak" if case.kind == "apart" else case.kind
    first = next(other for other in found if other.kind == kind)
    growth = case.workers / first.workers if case.kind == "strong" else 1
    own, base = (
        [statistics.mean(worker["step s"] for worker in turn) for turn in found[each]]
        for each in (case, first)
    )
    members = [member for turn in found[case] for member in turn]
    step_s = statistics.median(own)
    model = count_sent(
        unbuilt(config.model),
        ranks=1 if case.kind == "apart" else case.workers,
        copies=1,
        accumulation=-(-case.batch // (config.train.micro_batch * case.workers)),
        reshard=config.train.reshard,
    )
    return {
        "kind": case.kind,
        "workers": case.workers,
        "own cores": own_cores(config, 0, case.workers) is not None or config.train.gpu,
        "samples": case.batch,
        "step s": step_s,
        "CPU s": statistics.mean(m["CPU s"] for m in members),
        "samples/s": case.batch / step_s,
        "efficiency": statistics.median(b / (growth * t) for b, t in zip(base, own, strict=True)),
        "in collectives": statistics.mean(m["collectives s"] for m in members) / step_s,
        "gather MB": members[0]["gather MB"],
        "gather MB, model": model.gathered / 1e6,
        "scatter MB": members[0]["scatter MB"],
        "scatter MB, model": model.scattered / 1e6,
        "GiB": max(m["GiB"] for m in members),
    }


if __name__ == "__main__":
    main()
