"""Restoring video from files to files: any length, any size, by any number of workers."""
