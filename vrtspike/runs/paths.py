"""Names of the files of a run, below its folder."""

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
EXPORT = "export/model.safetensors"
