"""A lock on a run folder for the whole cluster: a Ray actor whose name is derived from the folder.

It prevents two jobs from writing to the same run, because Ray gives each name to one actor only.
The actor ends with the job that started it.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vrtspike.runs.folder import already_trained
from vrtspike.storage.folder import Folder
from vrtspike.storage.uri import without_keys

GRACE_SECONDS = 20.0
"""How long to wait for a killed job to leave the cluster."""
NAMESPACE = "vrtspike"


def claim(folder: Folder, actor: type, **arguments: Any) -> Any:
    """Start the only actor of a folder, on the node of this process.

    `arguments` are passed to the actor's class. Raises ResourceError if another job still has an
    actor for the folder after `GRACE_SECONDS`.
    """
    here = ray.get_runtime_context().get_node_id()
    options = {
        "name": _name(folder),
        "namespace": NAMESPACE,
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False),
    }
    until = time.monotonic() + GRACE_SECONDS
    while True:
        try:
            return ray.remote(actor).options(**options).remote(**arguments)
        except ValueError:
            # The name is taken, by a running job or by one that was killed a moment ago.
            if time.monotonic() > until:
                raise already_trained(folder) from None
            time.sleep(1)


def claimed(folder: Folder) -> Any | None:
    """Return the actor of a folder, or None."""
    try:
        return ray.get_actor(_name(folder), namespace=NAMESPACE)
    except ValueError:
        return None


def _name(folder: Folder) -> str:
    place = without_keys(folder.where)
    return f"run-{hashlib.sha256(place.encode()).hexdigest()[:16]}"
