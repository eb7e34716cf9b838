"""Spike streams: read and write them, turn them into voxels and images, and augment them."""
