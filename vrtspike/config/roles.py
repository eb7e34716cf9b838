"""Roles of settings, written on their fields: `steps: Annotated[Positive, MAY_CHANGE] = 300_000`.

A role on a section holds for all settings in it. `vrtspike.config.loader.keys_with` lists the keys
that have one. What has no role decides what a run computes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """What a setting does to a run or a sweep."""

    meaning: str


@dataclass(frozen=True)
class SameInTrials:
    """A setting that a sweep cannot change."""

    reason: str


PLACE = Role("where things are and how faults are borne: neither a result nor a cost")
COST = Role("what a step costs, and not what it computes")
MAY_CHANGE = Role("may change when a run continues")
MAY_CHANGE_IN_SWEEP = Role("may change when a sweep continues")
SPIKES = Role("the model without spikes does not have it")
SWEPT = Role("a sweep may change it")
SWEPT_BY_TIME = Role("decides which samples a step sees: swept where trials get equal time")

SAME_BUDGET = SameInTrials("all trials have the same budget")
SAME_SAMPLES = SameInTrials("all trials see the same samples")
SAME_RESOURCES = SameInTrials("all trials have the same resources")
SAME_STEPS = SameInTrials("trials are compared at the same steps")
