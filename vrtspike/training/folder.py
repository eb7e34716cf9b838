"""The folder of a run, and the notes by which its driver and its workers talk.

config.yaml  metrics.jsonl  tensorboard/  checkpoints/  export/model.safetensors
.stop        the driver asks to save and stop (it was sent SIGTERM, say)
.failure     a worker met one of our own errors: trying again would not help
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import vrtspike.errors
from vrtspike.errors import VrtSpikeError
from vrtspike.settings import Config
from vrtspike.storage import write_atomically

_PARTS = ("what", "where", "got", "expected", "fix")


@dataclass(frozen=True)
class WorkerPlan:
    """What the driver tells every worker."""

    config: Config
    run: str
    """The run's folder."""
    data_cpus: float
    """CPUs that the data tasks of one rank may use."""


@dataclass(frozen=True)
class RunFolder:
    """Where the files of a run are."""

    path: Path

    @property
    def config(self) -> Path:
        """Return the file of the resolved configuration."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Return the folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def export(self) -> Path:
        """Return the file of the final weights."""
        return self.path / "export" / "model.safetensors"

    @property
    def stop(self) -> Path:
        """Return the note that asks the workers to save and stop."""
        return self.path / ".stop"

    @property
    def failure(self) -> Path:
        """Return the note of the error that ended a run."""
        return self.path / ".failure"

    def clear_notes(self) -> None:
        """Remove the notes of an earlier attempt."""
        self.stop.unlink(missing_ok=True)
        self.failure.unlink(missing_ok=True)

    def report_failure(self, error: VrtSpikeError) -> None:
        """Leave an error for the driver, unless another rank did so first."""
        if not self.failure.exists():
            parts = {name: getattr(error, name) for name in _PARTS}
            note = {name: value if value is None else str(value) for name, value in parts.items()}
            note["kind"] = type(error).__name__
            write_atomically(self.failure, json.dumps(note).encode())

    def reported_failure(self) -> VrtSpikeError | None:
        """Return the error that a worker left, if any."""
        if not self.failure.is_file():
            return None
        note = json.loads(self.failure.read_text(encoding="utf-8"))
        kind = getattr(vrtspike.errors, note.pop("kind"), VrtSpikeError)
        error: VrtSpikeError = kind(note.pop("what"), **note)
        return error
