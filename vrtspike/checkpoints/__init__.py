"""Checkpoints of a training run: written by all ranks, verified, and read again."""
