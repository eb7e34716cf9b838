"""Restoring video with a model, and measuring how well it does."""

from vrtspike.inference.evaluate import evaluate
from vrtspike.inference.restore import restore, restore_stream
from vrtspike.inference.results import Results
from vrtspike.inference.run_folder import Restorer, load_run

__all__ = ["Restorer", "Results", "evaluate", "load_run", "restore", "restore_stream"]
