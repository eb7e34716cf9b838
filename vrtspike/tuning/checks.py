"""What is refused before the first trial of a sweep.

In: a configuration with a `sweep`, and the data's manifest once there is one. ConfigError for keys
that a sweep cannot change fairly, for a metric that cannot rank its trials, and for combinations
that no model can have.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

from vrtspike.config.config import Config
from vrtspike.config.loader import (
    change,
    check_known,
    keys_with,
    known_keys,
    same_in_trials,
    within,
)
from vrtspike.config.model import ModelSettings
from vrtspike.config.roles import COST, MAY_CHANGE, PLACE, SPIKES, SWEPT, SWEPT_BY_TIME
from vrtspike.config.sweep import Distribution, SweepSettings
from vrtspike.config.train import LossSettings, TrainSettings
from vrtspike.errors import ConfigError, VrtSpikeError
from vrtspike.samples.shards import Manifest
from vrtspike.training.budget import budget_text
from vrtspike.training.preflight import check_data, check_loss, check_model
from vrtspike.training.tasks import check_restores
from vrtspike.tuning.space import BASELINE, corners, discrete, grid, said, sweep_of


def check_space(config: Config, manifest: Manifest | None = None) -> None:
    """Refuse a sweep that cannot be fair or cannot run; with the data's manifest, also what does
    not fit the data.

    Raises ConfigError for a key that is unknown, not to be swept or of the wrong type, a metric
    that is never reported, and a combination that is impossible (`sweep.impossible`).
    """
    check_restores(config, "a sweep")
    sweep = sweep_of(config)
    for key in sweep.space:
        if config.train.minutes is None or key not in keys_with(SWEPT_BY_TIME):
            _check_key(key)
    _check_metric(config, sweep)
    possible = Possible(config, manifest)
    plain = possible(BASELINE)
    if plain is not None:
        raise plain
    count = found = 0
    # All trials of a grid, and a sample of what others may come to.
    whole = sweep.search == "grid"
    for settings in grid(sweep.space) if whole else corners(sweep.space, sweep.seed):
        count += 1
        error = possible(settings)
        found += error is None
        if error is None:
            continue
        # What does not fit its own type is a mistake in any case.
        mistyped = _alone(config, settings)
        if mistyped or sweep.impossible == "refuse":
            fix = "correct sweep.space" if mistyped else "take it out, or set sweep.impossible=skip"
            raise ConfigError(
                f"a trial of the sweep is impossible: {error.what}",
                where=said(settings),
                got=error.got,
                expected=error.expected,
                fix=error.fix or fix,
            )
    if not found:
        raise ConfigError("no trial of the sweep is possible", got=f"{count} combinations")


class Possible:
    """Tell whether trials can exist."""

    def __init__(self, config: Config, manifest: Manifest | None) -> None:
        self._config, self._manifest = config, manifest

    def __call__(self, settings: Mapping[str, Any]) -> VrtSpikeError | None:
        """Return why a trial is impossible, or None."""
        try:
            config = change(self._config, settings)
        except ConfigError as error:
            return error
        problem = _problem_of(config.model) or _problem_of(config.loss)
        if problem is None and self._manifest is not None:
            try:
                check_data(config, self._manifest)
            except VrtSpikeError as error:
                return error
        return problem


@functools.cache
def _problem_of(section: ModelSettings | LossSettings) -> VrtSpikeError | None:
    """Return why a model or a loss cannot be built, or None; many trials share one."""
    try:
        match section:
            case ModelSettings():
                check_model(section)
            case LossSettings():
                check_loss(section)
    except VrtSpikeError as error:
        return error
    return None


def _alone(config: Config, settings: Mapping[str, Any]) -> bool:
    """Tell whether one of the settings is refused by itself, whatever the others are."""
    for key, value in settings.items():
        try:
            change(config, {key: value})
        except ConfigError as error:
            if error.what.startswith("setting "):
                return True
    return False


def _check_key(key: str) -> None:
    """Refuse a key that does not exist, or whose change would make trials unequal."""
    check_known(key, f"sweep.space.{key}")
    reason = same_in_trials().get(key)
    if reason is None and not _may_be_swept(key):
        reason = "it is the same for all trials of a sweep"
    if reason is None and any(other.startswith(key + ".") for other in known_keys()):
        raise ConfigError(
            f"{key} is a section of settings", where=f"sweep.space.{key}", fix="name one of them"
        )
    if reason is not None:
        raise ConfigError(
            f"a sweep cannot change {key}: {reason}",
            where=f"sweep.space.{key}",
            fix="take it out of sweep.space; for other values start other sweeps",
        )


def _may_be_swept(key: str) -> bool:
    """Tell whether trials may differ in a setting: in results or in cost, and not in place."""
    if within(key, keys_with(COST)):
        return True
    return within(key, keys_with(SWEPT, SPIKES)) and not within(key, keys_with(PLACE, MAY_CHANGE))


def _check_metric(config: Config, sweep: SweepSettings) -> None:
    """Refuse a metric that the space leaves equal, or that no trial reports in time."""
    costs = keys_with(COST)
    free = [key for key in sweep.space if key not in costs]
    if sweep.cost and free:
        raise ConfigError(
            "trials with different results cannot be ranked by their cost",
            where="sweep.metric",
            got=f"{sweep.metric}, and {free[0]} changes results",
            expected=f"only settings of {', '.join(costs)}",
            fix="set sweep.metric=psnr",
        )
    if not sweep.cost and not free:
        raise ConfigError(
            f"the settings of this sweep do not change {sweep.metric}, but cost",
            where="sweep.metric",
            got=sweep.metric,
            expected="step_s or memory_gb",
            fix="set sweep.metric=step_s",
        )
    _check_budget(config.train, sweep)
    if config.model.fusion == "none" or _tries(sweep.space.get("model.fusion"), "none"):
        raise ConfigError(
            "the model without spikes is not a trial: it is part of every sweep as its baseline",
            got="model.fusion none",
            fix="take it out",
        )


def _check_budget(train: TrainSettings, sweep: SweepSettings) -> None:
    """Refuse a budget at which trials cannot be compared, or none can be cut short."""
    every, by_time = train.validate_every, train.minutes is not None
    if by_time and sweep.cost:
        raise ConfigError(
            f"trials of equal minutes cannot be ranked by {sweep.metric}: losses are compared step "
            "by step",
            where="train.minutes",
            got=f"{train.minutes:g}",
            expected="null",
            fix="set train.minutes=null and train.steps",
        )
    if sweep.grace is None:
        return
    if by_time and every >= 1:
        raise ConfigError(
            "trials of equal minutes have different steps, and would be compared at different "
            "shares of them",
            where="train.validate_every",
            got=f"{every} steps, sweep.scheduler {sweep.scheduler}",
            expected="a share of the steps",
            fix="set train.validate_every=0.2, say, or sweep.scheduler=none",
        )
    if not 0 < every < 1:
        every = every / train.steps
    last = math.ceil(1 / every - 1e-9) * every - every if every else 0.0
    if last < sweep.grace - 1e-9:
        raise ConfigError(
            f"{sweep.metric} is not reported between the grace and the last step, so no trial can "
            "be cut short",
            got=f"train.validate_every {train.validate_every} of {budget_text(train)}, "
            f"sweep.grace {sweep.grace:g}",
            fix="set a smaller train.validate_every or sweep.grace, or sweep.scheduler=none",
        )


def _tries(how: Distribution | None, value: object) -> bool:
    return how is not None and value in discrete(how)
