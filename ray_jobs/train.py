"""Train a configuration on Ray: `vrtspike train` as a job for `ray job submit`.

    ray job submit --working-dir . -- python ray_jobs/train.py --config configs/debug.yaml

If the data are missing, it renders and prepares them first. A run of the same name continues.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vrtspike.cli.app import app

if __name__ == "__main__":
    app(["train", *sys.argv[1:]])
