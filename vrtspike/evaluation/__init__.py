"""Scoring models beside controls that need no training."""
