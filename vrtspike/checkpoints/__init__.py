"""Checkpoints of a training run: all ranks write them together, and every read verifies them."""
