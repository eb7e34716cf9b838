"""Choose the task of a configuration: train a restoring model, or the flow network alone."""

from __future__ import annotations

from vrtspike.config.config import Config
from vrtspike.errors import ConfigError
from vrtspike.training.flow_task import FlowTask
from vrtspike.training.restore_task import RestoreTask
from vrtspike.training.task import Task


def task_of(config: Config) -> Task:
    """Build the task of a configuration."""
    match config.train.task:
        case "restore":
            return RestoreTask(config)
        case "flow":
            return FlowTask(config)


def check_restores(config: Config, what: str) -> None:
    """Raise ConfigError if a configuration does not train a restoring model.

    `what` names the command in the error.
    """
    if config.train.task != "restore":
        raise ConfigError(
            f"{what} is of models that restore",
            where="train.task",
            got=config.train.task,
            expected="restore",
            fix="take the configuration of a model, such as configs/demo.yaml",
        )
