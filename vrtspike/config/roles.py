"""Roles of settings, written on their fields: `steps: Annotated[Positive, MAY_CHANGE] = 300_000`.

A role on a section applies to all settings in it. `vrtspike.config.loader.keys_with` lists the keys
with a role. A setting without a role changes the results of a run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """The effect of a setting on a run or a sweep."""

    meaning: str


@dataclass(frozen=True)
class SameInTrials:
    """A setting that a sweep cannot change."""

    reason: str


PLACE = Role("where files are and how failures are handled; changes neither results nor cost")
COST = Role("changes what a step costs, not what it computes")
MAY_CHANGE = Role("may change when a run continues")
MAY_CHANGE_IN_SWEEP = Role("may change when a sweep continues")
SPIKES = Role("the model without spikes does not have it")
SWEPT = Role("a sweep may change it")
SWEPT_BY_TIME = Role("decides which samples a step sees: swept where trials get equal time")

SAME_BUDGET = SameInTrials("all trials have the same budget")
SAME_SAMPLES = SameInTrials("all trials see the same samples")
SAME_RESOURCES = SameInTrials("all trials have the same resources")
SAME_STEPS = SameInTrials("trials are compared at the same steps")
