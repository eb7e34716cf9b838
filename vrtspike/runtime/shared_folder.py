"""Whether all nodes of a cluster can read the data and write to a sweep's folder."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vrtspike.errors import ResourceError
from vrtspike.storage.folder import Folder

LOOK_SECONDS = 120.0
"""How long a node may take to answer."""


def check_nodes_see(wanted: Mapping[str, tuple[Folder, str]]) -> None:
    """Check that every node sees a file in each of some folders; `wanted` goes by setting.

    Raises ResourceError that names the setting and the node. Object stores are not looked at.
    """
    paths = {
        setting: str(folder.path / file)
        for setting, (folder, file) in wanted.items()
        if not folder.remote
    }
    asked = {
        node["NodeManagerAddress"]: _unseen.options(
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(paths)
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    }
    for address, answer in asked.items():
        try:
            unseen = ray.get(answer, timeout=LOOK_SECONDS)
        except ray.exceptions.RayError:
            continue  # the node has gone, and takes no trial
        for setting in unseen:
            raise ResourceError(
                "a node of the cluster does not see a folder that all must share",
                where=f"node {address}",
                got=f"no {paths[setting]}",
                expected=f"{setting} on a disk of all nodes, or a URI",
                fix=f"set {setting} to a shared folder, or to a URI such as s3://bucket/folder",
            )


def marker(folder: Folder) -> str:
    """Write a small file into a folder, and return its name."""
    name = f".seen-{uuid.uuid4().hex[:8]}"
    folder.write(name, b"")
    return name


@ray.remote
def _unseen(paths: Mapping[str, str]) -> list[str]:
    """Return those of the paths that are not there."""
    return [setting for setting, path in paths.items() if not os.path.exists(path)]
