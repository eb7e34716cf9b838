"""Measurements of one's own hardware."""
