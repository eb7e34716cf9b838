"""`vrtspike prepare`: write a dataset as shards for training."""

from __future__ import annotations

from vrtspike.cli.console import (
    ConfigFile,
    Debug,
    JsonFile,
    Overrides,
    check_dataset,
    command,
    load,
    say,
    short,
)
from vrtspike.runtime.ray_session import connect


def prepare(
    config: ConfigFile,
    overrides: Overrides = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Write a dataset as shards for training.

    Uses Ray Data. If it was stopped, it continues.
    """
    with command(json_file, debug) as outcome:
        settings = load(config, overrides)
        data = settings.data
        dataset = check_dataset(settings)
        from vrtspike.runtime.progress import Progress

        with connect(), Progress("prepare") as progress:
            from vrtspike.samples.prepare import prepare_data

            manifest = prepare_data(data, progress.update, dataset=dataset)
        samples = {name: len(split.samples) for name, split in manifest.splits.items()}
        refused = [refusal.model_dump() for refusal in manifest.refused]
        place = short(data.shards)
        outcome.facts = {"shards": str(place), "samples": samples, "refused": refused}
        counts = ", ".join(f"{count} samples of {name}" for name, count in samples.items())
        say(f"shards: {place}: {counts}")
