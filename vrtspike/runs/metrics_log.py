"""What a run writes while it goes on: metrics.jsonl and TensorBoard, by rank 0.

One JSON object a line, with `kind` and `step` (steps done, from 1):
    train     loss, terms (each before its weight), lr, lr_flow, grad_norm, samples_per_s, step_s,
              data_wait (share of the time), memory_gb, skipped (non-finite steps so far), spent_s
              and spent_cpu_s (of all steps so far, by the clock and of CPU: that of rank 0's
              process), elapsed_s (since the run first started)
    val       psnr (dB), ssim, blurred_psnr, best_psnr, share (of the run that is done; null where
              its length is not known)
    start     world_size, passed_over (checkpoints that did not verify), steps (of the whole run;
              null where they are still to be measured, see `train.minutes`)
    measured  steps (of the whole run), step_s, step_cpu_s (what the steps that were measured took)
    saved     seconds from the copy of the state to the manifest, blocked_s (of the loop)
A continued run first drops the lines after the step it continues from, so that every step is in
the file once.

On a disk the files grow where they belong. An object store cannot append: there they grow in a
folder of this machine, and `publish` copies them, which happens before each checkpoint. A disk that
is full holds nothing up: lines wait in memory until there is room, curves and pictures may be lost.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrtspike.errors import DataFormatError
from vrtspike.runs.paths import METRICS
from vrtspike.storage.folder import Folder, write_atomically

logger = logging.getLogger(__name__)

EVENTS = "tensorboard"


class MetricsLog:
    """Append records to a run's metrics; `tensorboard` adds its event files."""

    def __init__(self, run: Folder, *, resumed: int, tensorboard: bool = True) -> None:
        self._run, self._resumed, self._tensorboard = run, resumed, tensorboard
        here = Path(tempfile.mkdtemp(prefix="vrtspike-")) if run.remote else run.path
        self._here = here
        self._events: Any = None
        self._failed = False
        kept = [record for record in read_metrics(run) if record["step"] <= resumed]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        write_atomically(here / METRICS, text.encode())
        self._file = (here / METRICS).open("ab", buffering=0)
        self._unwritten = b""
        self._published: dict[str, int] = {}

    def write(self, kind: str, step: int, **fields: Any) -> Record:
        """Add one record and return it; not-a-number and infinity become null."""
        record: Record = {"kind": kind, "step": step} | _finite(fields)
        self._unwritten += json.dumps(record).encode() + b"\n"
        self._write_lines()
        if self._tensorboard and kind in ("train", "val"):
            with self._full_disk_is_borne():
                for name, value in _scalars(record, kind):
                    self._writer().add_scalar(name, value, step)
        return record

    def picture(self, name: str, step: int, picture: NDArray[np.uint8]) -> None:
        """Add a picture `(h, w, 3)` to TensorBoard."""
        if self._tensorboard:
            with self._full_disk_is_borne():
                self._writer().add_image(name, picture, step, dataformats="HWC")

    def publish(self) -> None:
        """Bring the files to where the run is; a store that is away is only warned of."""
        if not self._run.remote:
            return
        try:
            if self._events is not None:
                self._events.flush()
            for path in sorted(self._here.rglob("*")):
                name = path.relative_to(self._here).as_posix()
                if path.is_file() and self._published.get(name) != path.stat().st_size:
                    content = path.read_bytes()
                    self._run.write(name, content)
                    self._published[name] = len(content)
        except (DataFormatError, OSError) as error:
            logger.warning("metrics are behind: %s", error)

    def close(self) -> None:
        """Close the files and bring them home."""
        self._write_lines()
        self._file.close()
        with self._full_disk_is_borne():
            if self._events is not None:
                self._events.close()
        if self._run.remote:
            self.publish()
            shutil.rmtree(self._here, ignore_errors=True)

    def _write_lines(self) -> None:
        """Write what is not written yet, as far as the disk takes it."""
        with self._full_disk_is_borne():
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]

    @contextmanager
    def _full_disk_is_borne(self) -> Iterator[None]:
        """Go on where the disk fails; say so the first time."""
        try:
            yield
        except OSError as error:
            if not self._failed:
                logger.warning("cannot write metrics: %s [%s]", error.strerror, self._here)
            self._failed = True

    def _writer(self) -> Any:
        """Return TensorBoard's writer."""
        if self._events is None:
            # Imported late: the first step should not wait for it.
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self._here / EVENTS), purge_step=self._resumed + 1)
        return self._events


def _finite(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Replace what JSON has no word for, also one level down."""
    clean: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            clean[name] = _finite(value)
        else:
            bad = isinstance(value, float) and not math.isfinite(value)
            clean[name] = None if bad else value
    return clean


def _scalars(record: Record, prefix: str) -> list[tuple[str, float]]:
    """Name the numbers of a record for TensorBoard."""
    found = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            found += _scalars(dict(value), f"{prefix}/{name}")
        elif isinstance(value, int | float) and name != "step":
            found.append((f"{prefix}/{name}", float(value)))
    return found


def read_metrics(run: Folder) -> list[Record]:
    """Read the whole records of a run's metrics; a torn line is left out."""
    if run.size(METRICS) is None:
        return []
    records = []
    for line in run.read(METRICS).decode(errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


Record = dict[str, Any]
