"""Start or join Ray, and make the paths of a configuration valid on its machines.

`connect()` joins the cluster that RAY_ADDRESS names (it is set in a Ray job). Otherwise it starts a
local Ray with an object store of limited size, which only this machine and this user can reach, and
shuts it down at the end. Ray's log lines go to its session folder (`/tmp/ray/session_*/logs`). For
a local Ray of another size, run `ray start --head` and set RAY_ADDRESS=auto.

`resolve_path` makes paths absolute, because Ray's workers run in other folders. A job may run from
an uploaded copy of the working folder, which Ray deletes later; then its output goes to
`~/vrtspike`.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrtspike import WAIT_POLICY
from vrtspike.errors import ResourceError, one_line
from vrtspike.storage.folder import Folder
from vrtspike.weights import packaged

if TYPE_CHECKING:
    from pydantic import BaseModel

    from vrtspike.config.config import Config
    from vrtspike.config.run import RunSettings

logger = logging.getLogger(__name__)

OBJECT_STORE_SHARE = 0.15
OBJECT_STORE_LIMIT = 2 * 2**30
"""Size of the object store of a local Ray: this fraction of the memory, at most this many bytes."""

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable that Ray sets for the driver of a job: metadata and runtime environment."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Environment of the driver and of the workers of a local Ray; the user's own values win."""


CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Switch of Ray: 0 keeps Ray on one machine, so that it listens only on 127.0.0.1."""
INIT_WEIGHTS = ("train", "init_weights")
"""The setting that takes paths or names of packaged weights."""


@contextmanager
def connect(*, dashboard: bool = False) -> Iterator[str]:
    """Join the cluster at RAY_ADDRESS or start a local Ray; yield its address, and disconnect.

    A sweep on a local Ray needs the `dashboard`: without it, Ray Train does not learn of trials
    that died, and never frees their resources.

    Raise ResourceError if no cluster answers at RAY_ADDRESS, or if it refuses the token.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        _check_listening(address)
    except OSError as error:
        raise _refusal(address, error) from error
    import ray

    if ray.is_initialized():
        yield ray.get_runtime_context().gcs_address
        return
    with ExitStack() as stack:
        _start(address, dashboard, stack)
        try:
            yield ray.get_runtime_context().gcs_address
        finally:
            ray.shutdown()


def _start(address: str, dashboard: bool, stack: ExitStack) -> None:
    """Join a cluster, or start a local Ray; `stack` keeps its environment until the end."""
    import ray

    try:
        if address:
            ray.init(
                address=address,
                runtime_env={"env_vars": environment_of_workers()},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        else:
            stack.enter_context(_on_loopback())
            with _own_process_group():
                started: Any = ray.init(
                    address="local",
                    include_dashboard=dashboard,
                    object_store_memory=object_store_bytes(),
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            _keep_private(started.address_info["session_dir"])
    except Exception as error:  # Ray raises a plain Exception if a start takes too long
        raise _refusal(address, error) from error


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Make a local Ray listen only on this machine (127.0.0.1), as Ray does by default on macOS.

    Ray reads the variable when it is imported, which may have happened before, so we set Ray's
    constant too. Processes started inside the block inherit the variable and can join this Ray.
    Nothing changes if the user has set the variable.
    """
    from ray._private import ray_constants

    if CLUSTERS in os.environ:
        yield
        return
    before = ray_constants.ENABLE_RAY_CLUSTER
    os.environ[CLUSTERS], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[CLUSTERS]


def _keep_private(session: str) -> None:
    """Deny other users of this machine access to Ray's logs, sockets and token."""
    token = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    for path, mode in ((session, 0o700), (token, 0o600)):
        with suppress(OSError):
            os.chmod(path, mode)


def environment_of_workers(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables of this environment to pass to workers of an existing cluster.

    The variables of a Ray job are left out: workers have them already, and Ray refuses duplicates.
    """
    job = json.loads(environment.get(JOB_CONFIG, "{}")).get("runtime_env") or {}
    variables = {WAIT_POLICY: environment[WAIT_POLICY]} if WAIT_POLICY in environment else {}
    return {name: value for name, value in variables.items() if name not in job.get("env_vars", {})}


@contextmanager
def _own_process_group() -> Iterator[None]:
    """Start processes inside the block in their own process group.

    A signal to our group, for example from `timeout`, then reaches only this process, which tells
    the others to save.
    """
    ours = os.getpgrp()
    if os.getpid() in (ours, os.getsid(0)):
        # The leader of a group or session could not return to its group.
        yield
        return
    os.setpgid(0, 0)
    try:
        yield
    finally:
        # If all other processes of the old group have ended, the group no longer exists.
        with suppress(PermissionError):
            os.setpgid(0, ours)


def _refusal(address: str, error: Exception) -> ResourceError:
    return ResourceError(
        "cannot join the Ray cluster" if address else "cannot start a local Ray",
        where=f"RAY_ADDRESS={address}" if address else None,
        got=one_line(error),
        fix="start it with `ray start --head`, give its token as RAY_AUTH_TOKEN with "
        "RAY_AUTH_MODE=token, or unset RAY_ADDRESS for a Ray of your own"
        if address
        else None,
    )


def _check_listening(address: str, seconds: float = 10.0) -> None:
    """Raise OSError if nothing listens at host:port; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()


def object_store_bytes() -> int:
    """Return the size of the object store of a local Ray in bytes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(int(memory * OBJECT_STORE_SHARE), OBJECT_STORE_LIMIT)


def capacity(run: RunSettings) -> dict[str, float]:
    """Return the CPUs and GPUs of the cluster, or the limits in `run` of an autoscaling one."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return {
        "CPU": max(resources.get("CPU", 0.0), run.cluster_cpus or 0.0),
        "GPU": max(resources.get("GPU", 0.0), run.cluster_gpus or 0.0),
    }


def cluster_size() -> tuple[int, int, int]:
    """Return the present number of GPUs, CPUs and machines of the cluster."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    machines = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    return int(resources.get("GPU", 0)), int(resources.get("CPU", 0)), machines


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block, except those that are already set."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def quiet_ray() -> None:
    """Show only errors of the loggers of Ray Train and Tune."""
    for name in ("ray.train", "ray.tune", "ray.air"):
        logging.getLogger(name).setLevel(logging.ERROR)


def in_job(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process was started by `ray job submit`."""
    return JOB_CONFIG in environment


def in_uploaded_copy(folder: Path, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process is a Ray job and `folder` is in Ray's copy of a folder."""
    return in_job(environment) and "working_dir_files" in folder.parts


def resolve_path(
    path: Path,
    *,
    written: bool = False,
    folder: Path | None = None,
    home: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Path:
    """Return an absolute path; relative paths start at `folder`, by default the current folder.

    In an uploaded copy, relative paths start at `<home>/vrtspike` if they are `written` or not part
    of the copy.
    """
    folder = Path.cwd() if folder is None else folder
    path = path.expanduser()
    if in_uploaded_copy(folder, environment) and (written or not (folder / path).exists()):
        folder = (Path.home() if home is None else home) / "vrtspike"
    return folder / path


def resolve_place(where: str) -> Folder:
    """Return the folder at a path, which is made absolute, or at a URI."""
    folder = Folder.at(where)
    return folder if folder.remote else Folder(str(resolve_path(folder.path)))


def resolve_paths(
    config: Config,
    *,
    folder: Path | None = None,
    home: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Config:
    """Return the configuration with all paths resolved by `resolve_path`.

    `run.root` counts as written. Names of packaged weights do not change.
    """
    from pydantic import BaseModel

    from vrtspike.config.config import Config

    if in_uploaded_copy(Path.cwd() if folder is None else folder, environment):
        output = resolve_path(
            Path(), written=True, folder=folder, home=home, environment=environment
        )
        logger.info("relative paths lie in %s: this job's working folder is a copy", output)

    def resolved_path(path: Path, at: tuple[str, ...]) -> Path:
        written = at == ("run", "root")
        return resolve_path(
            path, written=written, folder=folder, home=home, environment=environment
        )

    def resolve(section: BaseModel, at: tuple[str, ...]) -> BaseModel:
        changes: dict[str, object] = {}
        for name in type(section).model_fields:
            value, key = getattr(section, name), (*at, name)
            if isinstance(value, BaseModel):
                changes[name] = resolve(value, key)
            elif key == INIT_WEIGHTS:
                if value is not None:
                    changes[name] = tuple(
                        entry if packaged(entry) else str(resolved_path(Path(entry), key))
                        for entry in value
                    )
            elif isinstance(value, Path):
                changes[name] = resolved_path(value, key)
            elif isinstance(value, tuple) and any(isinstance(v, Path) for v in value):
                changes[name] = tuple(resolved_path(v, key) for v in value)
        return section.model_copy(update=changes)

    resolved = resolve(config, ())
    assert isinstance(resolved, Config)
    return resolved
