"""Run a sweep over settings on Ray: `vrtspike tune` as a job for `ray job submit`.

    ray job submit --working-dir . -- python ray_jobs/tune.py --config configs/tune/debug.yaml

If the data are missing, it renders and prepares them first. A stopped sweep continues when the same
command runs again.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vrtspike.cli.app import app

if __name__ == "__main__":
    app(["tune", *sys.argv[1:]])
