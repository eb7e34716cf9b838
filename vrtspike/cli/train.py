"""`vrtspike train`: train a model on Ray."""

from __future__ import annotations

from vrtspike.cli.console import (
    ConfigFile,
    Debug,
    JsonFile,
    Overrides,
    check_data_is_there,
    command,
    load,
    say,
    short,
)
from vrtspike.errors import ConfigError
from vrtspike.runtime.ray_session import connect


def train(
    config: ConfigFile,
    overrides: Overrides = None,
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Train a model on Ray. A run of the same name continues."""
    with command(json_file, debug) as outcome:
        settings = load(config, overrides)
        if settings.sweep is not None:
            raise ConfigError(
                "this configuration is a sweep",
                where=config,
                fix="run it with `vrtspike tune`, or train one without `sweep:`",
            )
        check_data_is_there(settings)
        from vrtspike.training.preflight import check_before_ray

        check_before_ray(settings)
        from vrtspike.training.driver import run_training

        with connect():
            run = run_training(settings)
        outcome.facts = {"run": str(run)}
        say(f"run: {short(run.where)}")
