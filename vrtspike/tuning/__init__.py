"""Sweeps over settings beside the same model without spikes: Ray Tune, and a report."""
