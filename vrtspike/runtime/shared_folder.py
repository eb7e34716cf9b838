"""Check that all nodes of a cluster share the folders of the data and of a sweep."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vrtspike.errors import ResourceError
from vrtspike.storage.folder import Folder

LOOK_SECONDS = 120.0
"""Seconds to wait for the answer of a node."""


def check_nodes_see(wanted: Mapping[str, tuple[Folder, str]]) -> None:
    """Check that a file in each of these folders exists on every node.

    `wanted` gives a folder and a file name for each setting. Raise ResourceError with the setting
    and the node. Object stores are not checked.
    """
    paths = {
        setting: str(folder.path / file)
        for setting, (folder, file) in wanted.items()
        if not folder.remote
    }
    answers = {
        node["NodeManagerAddress"]: _missing.options(
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(paths)
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    }
    for address, answer in answers.items():
        try:
            missing = ray.get(answer, timeout=LOOK_SECONDS)
        except ray.exceptions.RayError:
            continue  # the node is lost, and will run no trial
        for setting in missing:
            raise ResourceError(
                "a node of the cluster does not see a folder that all must share",
                where=f"node {address}",
                got=f"no {paths[setting]}",
                expected=f"{setting} on a disk of all nodes, or a URI",
                fix=f"set {setting} to a shared folder, or to a URI such as s3://bucket/folder",
            )


def marker(folder: Folder) -> str:
    """Write an empty file into a folder, and return its name."""
    name = f".seen-{uuid.uuid4().hex[:8]}"
    folder.write(name, b"")
    return name


@ray.remote
def _missing(paths: Mapping[str, str]) -> list[str]:
    """Return the settings whose path does not exist on this node."""
    return [setting for setting, path in paths.items() if not os.path.exists(path)]
