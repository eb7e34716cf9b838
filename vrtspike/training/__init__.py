"""Training: the optimiser step, its parts, and the Ray job that runs it."""
