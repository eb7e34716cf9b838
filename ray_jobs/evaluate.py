"""Evaluate trained runs: `vrtspike evaluate` as a job for `ray job submit`.

    ray job submit --working-dir . --entrypoint-num-gpus 1 -- python ray_jobs/evaluate.py \\
        --config configs/demo.yaml --fused runs/demo/fused --baseline runs/demo/baseline

It runs on the node where the job starts. On a cluster without GPUs, leave out
`--entrypoint-num-gpus 1`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vrtspike.cli.app import app

if __name__ == "__main__":
    app(["evaluate", *sys.argv[1:]])
