"""Restore video on Ray: `vrtspike restore` as a job for `ray job submit`.

    ray job submit --working-dir . -- python ray_jobs/restore.py --weights runs/demo/fused \\
        --input data/clip/test --spikes data/clip/test --out restored

There is one worker for each GPU of the cluster, or as many as `--workers` says. Files must be in a
folder that all nodes share. A stopped job continues when the same command runs again.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vrtspike.cli.app import app

if __name__ == "__main__":
    app(["restore", *sys.argv[1:]])
