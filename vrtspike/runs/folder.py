"""The folder of a run: on this machine, on a disk that nodes share, or in an object store.

config.yaml  metrics.jsonl  tensorboard/  checkpoints/  export/model.safetensors
.lock        locked by the driver while the run trains (on a disk only)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from vrtspike.config.config import Config
from vrtspike.config.run import RunSettings
from vrtspike.config.train import TrainSettings
from vrtspike.errors import ResourceError
from vrtspike.storage.folder import Folder
from vrtspike.storage.lock import locked

LOCK = ".lock"


@dataclass(frozen=True)
class WorkerPlan:
    """The arguments that the driver passes to every worker."""

    config: Config = field(repr=False)
    run: Folder = field(repr=False)
    data_cpus: float
    """CPUs for the data tasks of one rank."""
    preemptible: bool
    """Whether Ray may take nodes away."""


def run_folder(run: RunSettings) -> Folder:
    """Return the folder of a run."""
    return Folder.at(run.root).below(run.name)


def checkpoints_of(run: Folder) -> Folder:
    return run.below("checkpoints")


def collective_timeout_s(train: TrainSettings) -> int:
    """Return the timeout of collectives in seconds.

    It is long enough for the supervisor to find and name a rank that hangs, and for slow storage.
    """
    return int(2 * train.hang_timeout_s + train.storage_timeout_s + 60)


@contextmanager
def only_one(run: Folder) -> Iterator[None]:
    """Hold a run's lock inside the block; raise ResourceError if another process holds it.

    The operating system releases the lock when the process ends, even if it crashes. Runs in an
    object store have no such lock.
    """
    if run.remote:
        yield
        return
    with ExitStack() as stack:
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            # On a network disk without locks, jobs of one cluster still exclude each other by the
            # name of the supervisor (`vrtspike.runs.actor_lock`).
            stack.enter_context(locked(run.path / LOCK, already_trained(run)))
        except OSError as error:
            raise ResourceError(
                f"cannot write to the run's folder: {error.strerror}",
                where=run,
                fix="set run.root to a folder that you may write to",
            ) from None
        yield


def already_trained(run: Folder) -> ResourceError:
    """Return the error for starting a run that is already being trained."""
    return ResourceError(
        "this run is being trained already",
        where=run,
        fix="wait for it or stop it, or train a run of another run.name",
    )
