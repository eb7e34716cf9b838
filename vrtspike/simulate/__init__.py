"""Simulate datasets with ground truth: spikes and blurred frames from rendered scenes or video."""

from __future__ import annotations
