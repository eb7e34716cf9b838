"""A Ray cluster of several nodes on this machine, drivers of runs on it, and ways to hurt both.

The head has no CPUs; nodes 127.0.0.2, 127.0.0.3 ... have room for one training worker and some of
its data tasks each, so that ranks lie on different nodes. Drivers are commands, as users run them.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from vrtspike.runs.metrics_log import read_metrics
from vrtspike.storage.folder import Folder

REPOSITORY = Path(__file__).resolve().parents[2]
CPUS_PER_WORKER = 1.5
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A node that does not answer is dead after some seconds, not after half a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
    "OMP_NUM_THREADS": "1",
}


class Nodes:
    """The nodes of a cluster beside its head."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._nodes: dict[int, Any] = {}
        self.address: str = cluster.address

    def add(self, number: int) -> None:
        """Start node 127.0.0.<number>."""
        self._nodes[number] = self._cluster.add_node(
            num_cpus=2,
            node_ip_address=f"127.0.0.{number}",
            object_store_memory=200 * 2**20,
        )

    def lose(self, number: int) -> None:
        """Kill all processes of a node at once."""
        self._cluster.remove_node(self._nodes.pop(number), allow_graceful=False)

    def drain(self, number: int, seconds: int) -> None:
        """Announce that a node is to be taken away."""
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "drain-node"),
            *("--address", self.address, "--node-id", self._nodes[number].node_id),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"),
            *("--deadline-remaining-seconds", str(seconds)),
        ]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | ENVIRONMENT)

    @property
    def numbers(self) -> list[int]:
        """Return the nodes that are there."""
        return sorted(self._nodes)

    def workers(self) -> list[psutil.Process]:
        """Return the training processes of this cluster."""
        raylets = {
            info.process.pid
            for node in self._nodes.values()
            for infos in node.all_processes.values()
            for info in infos
        }
        return [p for p in training_processes() if any(a.pid in raylets for a in p.parents())]


@contextmanager
def nodes(numbers: Sequence[int] = (2, 3), *, dashboard: bool = False) -> Iterator[Nodes]:
    """Run a cluster and end every process of it afterwards."""
    from ray.cluster_utils import Cluster

    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "object_store_memory": 200 * 2**20,
            "include_dashboard": dashboard,
            **({"dashboard_port": free_port()} if dashboard else {}),
        },
        shutdown_at_exit=True,
    )
    try:
        found = Nodes(cluster)
        for number in numbers:
            found.add(number)
        yield found
    finally:
        cluster.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


RAYS_OWN = (
    "ActorLocationTracker",
    "_AutoscalingCoordinatorActor",
    "_StatsActor",
    "TrainStateActor",
)
"""Actors that Ray starts once for a cluster, and keeps."""


def training_processes() -> list[psutil.Process]:
    """Return the training workers of all Rays on this machine."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline())
            if title.startswith("ray::") and "RayTrainWorker" in title:
                found.append(process)
    return found


class Driver:
    """One `vrtspike train`, or another command, on a cluster."""

    def __init__(
        self,
        address: str,
        run: Path,
        overrides: dict[str, Any],
        log: Path,
        command: Sequence[str | Path] = ("train", "--config", "configs/debug.yaml"),
    ) -> None:
        self.run, self.log = run, log
        named = {"run.root": run.parent, "run.name": run.name} | overrides
        command = [
            *(sys.executable, "-m", "vrtspike", *command),
            *(f"{key}={value}" for key, value in named.items()),
        ]
        environment = os.environ | ENVIRONMENT | {"RAY_ADDRESS": address}
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, env=environment, stdout=file, stderr=file
            )

    @property
    def said(self) -> str:
        """Return what the driver has printed so far."""
        return self.log.read_text(errors="replace")

    def step(self) -> int:
        """Return the last step that the run has noted."""
        return last_step(self.run)

    def until(self, done: Callable[[], bool], seconds: float = 180.0) -> float:
        """Wait for something and return the seconds; fail when the driver ends before."""
        started = time.monotonic()
        while not done():
            if self.process.poll() is not None and not done():
                raise AssertionError(f"the driver ended: {self.said}")
            assert time.monotonic() - started < seconds, self.said
            time.sleep(0.02)
        return time.monotonic() - started

    def until_step(self, step: int, seconds: float = 180.0) -> float:
        """Wait until a step has been noted."""
        return self.until(lambda: self.step() >= step, seconds)

    def kill(self) -> None:
        """End the driver at once."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self, seconds: float = 240.0) -> int:
        """Wait for the driver's own end; return its exit status."""
        return self.process.wait(seconds)


def records(run: Path, kind: str) -> list[dict[str, Any]]:
    """Return a run's records of a kind."""
    return [record for record in read_metrics(Folder.at(run)) if record["kind"] == kind]


def last_step(run: Path) -> int:
    """Return the last step that a run has noted."""
    return max((record["step"] for record in records(run, "train")), default=0)


def warnings_of(said: str) -> list[str]:
    """Return the warnings in what a driver printed."""
    return re.findall(r"(?:vrtspike|WARNING): (.*)", said)
