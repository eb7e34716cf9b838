"""Checkpoints of a training run: all ranks write them together; a run verifies them before use."""
