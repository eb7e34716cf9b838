"""Evaluation: score models, and compare them with controls that need no training."""
