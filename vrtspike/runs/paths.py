"""Names of a run's files, relative to its folder."""

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
EXPORT = "export/model.safetensors"
