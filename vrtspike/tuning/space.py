"""The values that a sweep tries: combinations of settings by their dotted keys.

In: a sweep's `space`. Out: all combinations (`grid`), one drawn (`draw`), or the extremes of the
space (`corners`).
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vrtspike.config.config import Config
from vrtspike.config.sweep import (
    Choice,
    Distribution,
    Grid,
    Integer,
    LogUniform,
    SweepSettings,
    Uniform,
)
from vrtspike.errors import ConfigError

Settings = dict[str, Any]
"""Settings of one trial by their dotted keys."""

BASELINE: Settings = {"model.fusion": "none"}
"""What makes a configuration the baseline: the model without spikes."""

MOST_CHECKED = 96
"""Combinations that are checked before the first trial; of larger spaces a sample is."""


def grid(space: Mapping[str, Distribution]) -> list[Settings]:
    """Return all combinations of the `grid` keys, the last key changing fastest."""
    keys = {key: how.grid for key, how in space.items() if isinstance(how, Grid)}
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*keys.values())]


def draw(space: Mapping[str, Distribution], generator: np.random.Generator) -> Settings:
    """Draw a value for every key that is not a `grid` key."""
    drawn: Settings = {}
    for key, how in space.items():
        match how:
            case Choice():
                drawn[key] = how.choice[int(generator.integers(len(how.choice)))]
            case Uniform():
                drawn[key] = float(generator.uniform(*how.uniform))
            case LogUniform():
                low, high = (math.log(end) for end in how.log_uniform)
                drawn[key] = math.exp(generator.uniform(low, high))
            case Integer():
                numbers = whole_numbers(how)
                drawn[key] = numbers[int(generator.integers(len(numbers)))]
            case Grid():
                pass
    return drawn


def whole_numbers(how: Integer) -> range:
    """Return the values of an integer range."""
    return range(how.integer[0], how.integer[1] + 1, how.step)


def corners(space: Mapping[str, Distribution], seed: int) -> Iterator[Settings]:
    """Yield the combinations that are checked: all discrete values with the ends of all ranges."""
    values = {key: discrete(how) for key, how in space.items()}
    count = math.prod(len(choices) for choices in values.values())
    chosen = set(range(min(count, MOST_CHECKED)))
    if count > MOST_CHECKED:
        # Spaces may hold more combinations than an array, or a machine's integers.
        generator = random.Random(seed)
        chosen = set()
        while len(chosen) < MOST_CHECKED:
            chosen.add(generator.randrange(count))
    for index in sorted(chosen):
        combination: Settings = {}
        for key, choices in reversed(values.items()):
            index, at = divmod(index, len(choices))
            combination[key] = choices[at]
        yield {key: combination[key] for key in values}


def discrete(how: Distribution) -> Sequence[Any]:
    """Return the discrete values of a distribution, or the ends of a range."""
    match how:
        case Grid():
            return how.grid
        case Choice():
            return how.choice
        case Integer():
            return whole_numbers(how)
        case Uniform() | LogUniform():
            return how.ends


def sweep_of(config: Config) -> SweepSettings:
    """Return a configuration's sweep."""
    if config.sweep is None:
        raise ConfigError(
            "the configuration has no sweep",
            expected="a section `sweep:` with a `space:`",
            fix="take one of configs/tune/, or run `vrtspike train`",
        )
    return config.sweep


def said(settings: Mapping[str, Any]) -> str:
    """Write settings as one would on the command line."""
    return " ".join(f"{key}={_shown(value)}" for key, value in settings.items())


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "null" if value is None else str(value)
