"""The restoration model: VRT, its spike branch, and their weights."""

from vrtspike.model.build import build_model
from vrtspike.model.weights import LoadReport, load_weights

__all__ = ["LoadReport", "build_model", "load_weights"]
