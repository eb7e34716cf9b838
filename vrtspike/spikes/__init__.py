"""Spike streams: reading and writing them, voxels and images of them, and their changes."""
