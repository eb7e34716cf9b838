"""One actor a folder in the whole cluster: it keeps two jobs from writing to the same run.

Ray gives a name once. The actor ends with the job that claimed the folder.
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
"""How long a job that was killed may take to leave the cluster."""
NAMESPACE = "vrtspike"


def claim(folder: Folder, actor: type, **arguments: Any) -> Any:
    """Start an actor of a class, beside this process, that nobody else has for this folder.

    Raises ResourceError while another job has one.
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
            # The name is taken: by a job that goes on, or by one that was killed a moment ago.
            if time.monotonic() > until:
                raise already_trained(folder) from None
            time.sleep(1)


def claimed(folder: Folder) -> Any | None:
    """Return the actor that a folder is claimed by, if there is one."""
    try:
        return ray.get_actor(_name(folder), namespace=NAMESPACE)
    except ValueError:
        return None


def _name(folder: Folder) -> str:
    place = without_keys(folder.where)
    return f"run-{hashlib.sha256(place.encode()).hexdigest()[:16]}"
