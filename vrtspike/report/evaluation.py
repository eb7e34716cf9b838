"""Evaluate trained runs and write everything that a reader wants to see.

In: a configuration (dataset, split, how to run), run folders by the name of their method, and a
folder. Out, in that folder: results.json (means and protocol), results.csv (every frame),
robustness.csv (where disturbed spikes were asked for), samples/<split>/<sequence>/
<frame>-<method>.png, and report.html.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import vrtspike
from vrtspike.config.config import Config
from vrtspike.datasets.clip import Clip
from vrtspike.datasets.index import open_dataset
from vrtspike.evaluation.results import Results, write_text
from vrtspike.evaluation.robustness import check_robustness, evaluate_robustness, passes
from vrtspike.evaluation.run import evaluate, fit_tile, scored_clips
from vrtspike.report.evaluation_page import RunRecord, write_report
from vrtspike.report.methods import BASELINE, MAIN, guess_of, guesses_among
from vrtspike.restoration.restorer import Restorer
from vrtspike.runtime.process_memory import keep_heap
from vrtspike.storage.atomic import whole_file
from vrtspike.storage.folder import check_target


def run_evaluation(
    config: Config,
    models: Mapping[str, Restorer],
    out: Path,
    *,
    runs: Mapping[str, Path] | None = None,
    known_as: Mapping[str, str] | None = None,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> Results:
    """Evaluate models on the split that the configuration names, and write results and report.

    `runs` are the folders of those that have one: the report shows their training. `known_as` says
    in the protocol what a method's weights are. A model's first guess is scored before the model.
    Only `fused` and `baseline` get disturbed spikes.
    """
    clips = check_evaluation(config, models, out)
    split, settings = config.evaluation.split, config.evaluation
    dataset = open_dataset(config.data.source, config.data.layout)
    disturbed = _disturbed(models)
    models = with_first_guesses(models)
    first, second = 1 + len(models), passes(disturbed) if settings.robustness else 0
    if device.type == "cpu":
        keep_heap()
    settings = fit_tile(settings, clips, models)
    results = evaluate(
        dataset,
        split,
        models,
        settings,
        weights_dir=config.loss.weights_dir,
        device=device,
        progress=_part(progress, 0, first, second),
    )
    results = replace(results, protocol=with_names(results.protocol, known_as or {}))
    out.mkdir(parents=True, exist_ok=True)
    write_samples(results, out / "samples")
    results.write_csv(out / "results.csv")
    results.write_json(out / "results.json")
    if settings.robustness:
        found = evaluate_robustness(
            dataset,
            disturbed,
            results,
            settings,
            weights_dir=config.loss.weights_dir,
            device=device,
            progress=_part(progress, first, second, 0),
        )
        results = replace(results, robustness=found)
        results.write_json(out / "results.json")
        write_text(out / "robustness.csv", found.csv(split))
    write_report(
        out / "report.html",
        results,
        title=out.resolve().name,
        runs={name: RunRecord.read(run) for name, run in (runs or {}).items()},
        environment=environment(device),
    )
    return results


def check_evaluation(config: Config, models: Mapping[str, Restorer], out: Path) -> tuple[Clip, ...]:
    """Refuse what could not be scored, or written later; return what is to be scored."""
    check_target(out / "results.json")
    if config.evaluation.robustness:
        check_robustness(_disturbed(models))
    data, split = config.data, config.evaluation.split
    return scored_clips(data.source, split, models, layout=data.layout)


def _disturbed(models: Mapping[str, Restorer]) -> dict[str, Restorer]:
    """Return the models whose spikes are disturbed, if any are."""
    return {name: model for name, model in models.items() if name in (MAIN, BASELINE)}


def with_first_guesses(models: Mapping[str, Restorer]) -> dict[str, Restorer]:
    """Return the models, each behind its first guess if it refines one."""
    found: dict[str, Restorer] = {}
    for name, restorer in models.items():
        guess = restorer.first_guess
        found |= {name: restorer} if guess is None else {guess_of(name): guess, name: restorer}
    return found


def with_names(protocol: Mapping[str, Any], known_as: Mapping[str, str]) -> dict[str, Any]:
    """Return a protocol that says what the weights of its models are, and whose first guesses."""
    refined = {guess: name for name, guess in guesses_among(protocol["models"]).items()}
    models = {
        name: {
            **({"weights": known_as[name]} if name in known_as else {}),
            **({"first_guess_of": refined[name]} if name in refined else {}),
            **facts,
        }
        for name, facts in protocol["models"].items()
    }
    return {**protocol, "models": models}


def _part(
    progress: Callable[[int, int], None] | None, before: int, now: int, after: int
) -> Callable[[int, int], None] | None:
    """Return what a part of the work is to tell of itself; parts count as often as frames are
    gone through before it, now and after it."""
    if progress is None:
        return None

    def update(done: int, total: int) -> None:
        frames = total // now
        progress(before * frames + done, (before + now + after) * frames)

    return update


def write_samples(results: Results, folder: Path) -> None:
    """Write the pictures of the report as files."""
    for panel in results.panels:
        place = folder / results.split / panel.sequence
        place.mkdir(parents=True, exist_ok=True)
        for name, image in panel.images.items():
            file = place / f"{panel.frame}-{name.replace('/', '-')}.png"
            with whole_file(file) as temporary:
                Image.fromarray(image).save(temporary, format="PNG")


def environment(device: torch.device) -> dict[str, str]:
    """Say what the evaluation ran on."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "vrtspike": vrtspike.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": f"{device.type}, {where}",
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
    }
