"""What a run writes while it goes on: metrics.jsonl and TensorBoard, by rank 0.

One JSON object a line, with `kind` and `step` (steps done, from 1):
    train     loss, lr, grad_norm, samples_per_s, step_s, data_wait (share of the time), memory_gb,
              skipped (non-finite steps so far), elapsed_s (since the run first started)
    val       psnr (dB), ssim, blurred_psnr, best_psnr
    start     world_size, resumed (step), passed_over (checkpoints that did not verify)
    saved     checkpoint (name)
A continued run first drops the lines after the step it continues from, so that every step is in
the file once.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from vrtspike.storage import write_atomically

METRICS = "metrics.jsonl"


class Journal:
    """Append records to a run's metrics; `tensorboard` adds its event files."""

    def __init__(self, folder: Path, *, resumed: int, tensorboard: bool = True) -> None:
        self._path = folder / METRICS
        self._folder = folder / "tensorboard"
        self._resumed, self._tensorboard = resumed, tensorboard
        self._events: Any = None
        kept = [r for r in read_journal(folder) if r["step"] <= resumed]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        write_atomically(self._path, text.encode())
        self._file = self._path.open("a", encoding="utf-8")

    def write(self, kind: str, step: int, **fields: Any) -> None:
        """Add one record; not-a-number and infinity become null."""
        clean = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in fields.items()
        }
        self._file.write(json.dumps({"kind": kind, "step": step, **clean}) + "\n")
        self._file.flush()
        if self._tensorboard and kind in ("train", "val"):
            self._write_events(kind, step, clean)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._events is not None:
            self._events.close()

    def _write_events(self, kind: str, step: int, fields: dict[str, Any]) -> None:
        if self._events is None:
            # Imported late: the first step should not wait for it.
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self._folder), purge_step=self._resumed + 1)
        for name, value in fields.items():
            if isinstance(value, int | float):
                self._events.add_scalar(f"{kind}/{name}", value, step)


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """Read the whole records of a run's metrics; a torn last line is left out."""
    path = folder / METRICS
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records
