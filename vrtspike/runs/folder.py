"""The folder of a run: on this machine, on a disk that nodes share, or in an object store.

config.yaml  metrics.jsonl  tensorboard/  checkpoints/  export/model.safetensors
.lock        held by the driver of the run while it trains (on a disk only)
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
    """What the driver tells every worker."""

    config: Config = field(repr=False)
    run: Folder = field(repr=False)
    data_cpus: float
    """CPUs that the data tasks of one rank may use."""
    preemptible: bool
    """Whether Ray may take nodes away."""


def run_folder(run: RunSettings) -> Folder:
    """Return the folder of a run."""
    return Folder.at(run.root).below(run.name)


def checkpoints_of(run: Folder) -> Folder:
    """Return the folder of a run's checkpoints."""
    return run.below("checkpoints")


def collective_timeout_s(train: TrainSettings) -> int:
    """Return when a collective gives up: after the supervisor has found and named what hangs, and
    after
    the slowest storage."""
    return int(2 * train.hang_timeout_s + train.storage_timeout_s + 60)


@contextmanager
def only_one(run: Folder) -> Iterator[None]:
    """Hold a run's lock; raise ResourceError while another process on this disk does.

    The system drops the lock when its holder ends, however it ends. Object stores have none.
    """
    if run.remote:
        yield
        return
    with ExitStack() as stack:
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            # On a network disk without locks, jobs of one cluster still find each other: by the
            # supervisor.
            stack.enter_context(locked(run.path / LOCK, already_trained(run)))
        except OSError as error:
            raise ResourceError(
                f"cannot write to the run's folder: {error.strerror}",
                where=run,
                fix="set run.root to a folder that you may write to",
            ) from None
        yield


def already_trained(run: Folder) -> ResourceError:
    """Return the error of a second training of the same run at the same time."""
    return ResourceError(
        "this run is being trained already",
        where=run,
        fix="wait for it or stop it, or train a run of another run.name",
    )
