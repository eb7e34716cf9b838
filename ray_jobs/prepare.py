"""Write a dataset as shards with Ray Data: `vrtspike prepare` as a job for `ray job submit`.

    ray job submit --working-dir . -- python ray_jobs/prepare.py --config configs/demo.yaml

A stopped job continues: shards that exist and verify are not written again.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vrtspike.cli.app import app

if __name__ == "__main__":
    app(["prepare", *sys.argv[1:]])
