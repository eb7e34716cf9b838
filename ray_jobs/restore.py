"""Restore video on Ray: the job behind `vrtspike restore`, for `ray job submit`.

    ray job submit --working-dir . -- python ray_jobs/restore.py --weights runs/demo/fused \\
        --input data/clip/test --spikes data/clip/test --out restored

One worker a GPU of the cluster, or as --workers says; files lie where all nodes see them. The same
command finishes what was stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vrtspike.cli.app import app

if __name__ == "__main__":
    app(["restore", *sys.argv[1:]])
