"""Datasets of known truth: spikes and blur from rendered scenes or from sharp video."""

from __future__ import annotations
