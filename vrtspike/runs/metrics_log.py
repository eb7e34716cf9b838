"""The metrics of a running training: metrics.jsonl and TensorBoard, written by rank 0.

Each line is a JSON object with `kind` and `step` (number of steps done, from 1):
    train     loss, terms (unweighted), lr, lr_flow, grad_norm, samples_per_s, step_s, data_wait
              (fraction of the time), memory_gb, skipped (non-finite steps so far), spent_s and
              spent_cpu_s (wall time and rank 0's CPU time of all steps so far), elapsed_s (since
              the run first started)
    val       psnr (dB), ssim, blurred_psnr, best_psnr, share (fraction of the run that is done;
              null while its length is unknown); end-point errors instead in a flow training
    start     world_size, passed_over (checkpoints that did not verify), steps (of the whole run;
              null while unknown, see `train.minutes`)
    measured  steps (of the whole run), step_s, step_cpu_s (mean wall and CPU time of a step)
    saved     seconds (from the copy of the state to the manifest), blocked_s (how long the loop
              waited)
A continued run first drops the lines after the step that it continues from, so that the file
contains every step once.

On a disk, files are written in the run's folder. An object store cannot append, so files are
written in a temporary folder of this machine, and `publish` copies them before each checkpoint. A
full disk does not stop the run: lines wait in memory until there is space, but curves and pictures
may be lost.
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
from vrtspike.storage.atomic import write_atomically
from vrtspike.storage.folder import Folder

logger = logging.getLogger(__name__)

EVENTS = "tensorboard"

Record = dict[str, Any]
"""One line of metrics.jsonl: `kind`, `step`, and the fields of its kind (see above).

All values are JSON: numbers, texts, null, and for `terms` a dictionary of numbers.
"""


class MetricsLog:
    """Append records to a run's metrics.

    `resumed`: the step that the run continues from, or 0. `tensorboard`: also write event files.
    """

    def __init__(self, run: Folder, *, resumed: int, tensorboard: bool = True) -> None:
        self._run, self._resumed, self._tensorboard = run, resumed, tensorboard
        folder = Path(tempfile.mkdtemp(prefix="vrtspike-")) if run.remote else run.path
        self._folder = folder
        self._events: Any = None
        self._failed = False
        kept = [record for record in read_metrics(run) if record["step"] <= resumed]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        write_atomically(folder / METRICS, text.encode())
        self._file = (folder / METRICS).open("ab", buffering=0)
        self._unwritten = b""
        self._published: dict[str, int] = {}

    def write(self, kind: str, step: int, **fields: Any) -> Record:
        """Append a record and return it; NaN and infinity become null."""
        record: Record = {"kind": kind, "step": step} | _finite(fields)
        self._unwritten += json.dumps(record).encode() + b"\n"
        self._write_lines()
        if self._tensorboard and kind in ("train", "val"):
            with self._ignore_full_disk():
                for name, value in _scalars(record, kind):
                    self._writer().add_scalar(name, value, step)
        return record

    def picture(self, name: str, step: int, picture: NDArray[np.uint8]) -> None:
        """Add a picture `(h, w, 3)` to TensorBoard."""
        if self._tensorboard:
            with self._ignore_full_disk():
                self._writer().add_image(name, picture, step, dataformats="HWC")

    def publish(self) -> None:
        """Copy the files to the run's folder in an object store; only warn if that fails."""
        if not self._run.remote:
            return
        try:
            if self._events is not None:
                self._events.flush()
            for path in sorted(self._folder.rglob("*")):
                name = path.relative_to(self._folder).as_posix()
                if path.is_file() and self._published.get(name) != path.stat().st_size:
                    content = path.read_bytes()
                    self._run.write(name, content)
                    self._published[name] = len(content)
        except (DataFormatError, OSError) as error:
            logger.warning("metrics are behind: %s", error)

    def close(self) -> None:
        """Close the files; copy them to the object store, if the run is in one."""
        self._write_lines()
        self._file.close()
        with self._ignore_full_disk():
            if self._events is not None:
                self._events.close()
        if self._run.remote:
            self.publish()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _write_lines(self) -> None:
        """Write all waiting lines, as far as the disk has space."""
        with self._ignore_full_disk():
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]

    @contextmanager
    def _ignore_full_disk(self) -> Iterator[None]:
        """Ignore errors of the disk inside the block; warn of the first one."""
        try:
            yield
        except OSError as error:
            if not self._failed:
                logger.warning("cannot write metrics: %s [%s]", error.strerror, self._folder)
            self._failed = True

    def _writer(self) -> Any:
        """Return TensorBoard's writer; create it at the first call."""
        if self._events is None:
            # Imported here, because the import is slow and the first step should not wait for it.
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self._folder / EVENTS), purge_step=self._resumed + 1)
        return self._events


def _finite(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Replace NaN and infinity, which JSON lacks, by None, also in nested dictionaries."""
    clean: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            clean[name] = _finite(value)
        else:
            bad = isinstance(value, float) and not math.isfinite(value)
            clean[name] = None if bad else value
    return clean


def _scalars(record: Record, prefix: str) -> list[tuple[str, float]]:
    """Return the numbers of a record with their TensorBoard names: `prefix/name`."""
    scalars = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            scalars += _scalars(dict(value), f"{prefix}/{name}")
        elif isinstance(value, int | float) and name != "step":
            scalars.append((f"{prefix}/{name}", float(value)))
    return scalars


def read_metrics(run: Folder) -> list[Record]:
    """Read all records of a run; skip an incomplete line. Returns [] if there is no file."""
    if run.size(METRICS) is None:
        return []
    records = []
    for line in run.read(METRICS).decode(errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records
