"""Sweep over settings on Ray: the job behind `vrtspike tune`, for `ray job submit`.

    ray job submit --working-dir . -- python ray_jobs/tune.py --config configs/tune/debug.yaml

Renders and prepares the data first where they are missing. The same command finishes a sweep that
was stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vrtspike.cli.app import app

if __name__ == "__main__":
    app(["tune", *sys.argv[1:]])
