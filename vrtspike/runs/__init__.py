"""The folder of a run: its files, metrics and exported weights, and the model that they give."""
