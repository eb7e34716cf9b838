"""Which task a configuration trains: a model that restores, or the flow network alone."""

from __future__ import annotations

from vrtspike.config.config import Config
from vrtspike.errors import ConfigError
from vrtspike.training.flow_task import FlowTask
from vrtspike.training.restore_task import RestoreTask
from vrtspike.training.task import Task


def task_of(config: Config) -> Task:
    """Return what a configuration trains."""
    match config.train.task:
        case "restore":
            return RestoreTask(config)
        case "flow":
            return FlowTask(config)


def check_restores(config: Config, what: str) -> None:
    """Refuse a configuration that trains something else than a model that restores."""
    if config.train.task != "restore":
        raise ConfigError(
            f"{what} is of models that restore",
            where="train.task",
            got=config.train.task,
            expected="restore",
            fix="take the configuration of a model, such as configs/demo.yaml",
        )
