"""Train a configuration on Ray: the job behind `vrtspike train`, for `ray job submit`.

    ray job submit --working-dir . -- python ray_jobs/train.py --config configs/debug.yaml

Renders and prepares the data first where they are missing. A run of the same name continues.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vrtspike.cli.app import app

if __name__ == "__main__":
    app(["train", *sys.argv[1:]])
