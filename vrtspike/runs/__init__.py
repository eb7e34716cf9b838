"""The folder of a run: its files, its metrics and its exported weights."""
