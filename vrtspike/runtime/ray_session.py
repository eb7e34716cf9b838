"""Start or join Ray quietly, and make a configuration's paths good on its machines.

`connect()` joins the cluster that RAY_ADDRESS names (a Ray job has it set), or starts a local Ray
whose object store is bounded and which only this machine and this user reach, and shuts down what
it started. Ray's own lines stay in its session
folder (`/tmp/ray/session_*/logs`). Someone who wants another size of local Ray starts it with
`ray start --head` and sets RAY_ADDRESS=auto.

`resolve_path` makes paths absolute, because Ray's workers run in folders of their own. In a
job that runs from an uploaded copy of the working folder, which Ray deletes later, what a run
writes goes to `~/vrtspike`.
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
"""A local Ray's object store: this share of the memory, at most this many bytes."""

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable that Ray gives a job's driver: its metadata and runtime environment."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Environment of the driver and, on a local Ray, of its workers; a user's own values stay."""


CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's own switch, which off leaves a machine alone by itself, whatever its system."""
INIT_WEIGHTS = ("train", "init_weights")
"""The setting that holds paths, or names of packaged weights."""


@contextmanager
def connect(*, dashboard: bool = False) -> Iterator[str]:
    """Join RAY_ADDRESS or start a local Ray; give its address, and leave it afterwards.

    A local Ray has a `dashboard` where it is asked for: without, nobody tells Ray Train of trials
    of a sweep that died, and what they held is held for good.

    Raises ResourceError when no cluster answers at RAY_ADDRESS, or it refuses the token.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        _check_that_someone_listens(address)
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
    """Join a cluster, or start a local Ray; `stack` holds what that needs until it ends."""
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
            with _apart():
                started: Any = ray.init(
                    address="local",
                    include_dashboard=dashboard,
                    object_store_memory=object_store_bytes(),
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            _keep_private(started.address_info["session_dir"])
    except Exception as error:  # of a start that takes too long Ray says just this
        raise _refusal(address, error) from error


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have a local Ray listen to this machine alone (127.0.0.1), as Ray itself does on macOS, where
    it has no clusters.

    Ray reads the setting when it is imported, which may be long ago; processes that are started
    meanwhile find it in their environment, and join this Ray. A user's own value stays.
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
    """Keep others of this machine away from Ray's logs and sockets, and from its token."""
    token = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    for path, mode in ((session, 0o700), (token, 0o600)):
        with suppress(OSError):
            os.chmod(path, mode)


def environment_of_workers(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what workers of a cluster that others started are given of this environment.

    A Ray job's own variables are theirs anyway, and Ray refuses to be told twice.
    """
    job = json.loads(environment.get(JOB_CONFIG, "{}")).get("runtime_env") or {}
    wanted = {WAIT_POLICY: environment[WAIT_POLICY]} if WAIT_POLICY in environment else {}
    return {name: value for name, value in wanted.items() if name not in job.get("env_vars", {})}


@contextmanager
def _apart() -> Iterator[None]:
    """Start processes in a group of their own: a signal to ours (by `timeout`, say) is for this
    process, which then has them save."""
    ours = os.getpgrp()
    if os.getpid() in (ours, os.getsid(0)):
        # It leads the group, and could not come back.
        yield
        return
    os.setpgid(0, 0)
    try:
        yield
    finally:
        # Whoever else was in it may have ended: then there is no group to go back to.
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


def _check_that_someone_listens(address: str, seconds: float = 10.0) -> None:
    """Raise OSError where no one answers at host:port; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()


def object_store_bytes() -> int:
    """Return the size of a local Ray's object store."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(int(memory * OBJECT_STORE_SHARE), OBJECT_STORE_LIMIT)


def capacity(run: RunSettings) -> dict[str, float]:
    """Return the CPUs and GPUs of the cluster; of one that grows by itself, those it can have."""
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return {
        "CPU": max(found.get("CPU", 0.0), run.cluster_cpus or 0.0),
        "GPU": max(found.get("GPU", 0.0), run.cluster_gpus or 0.0),
    }


def cluster_size() -> tuple[int, int, int]:
    """Return the GPUs, CPUs and machines of the cluster as it is now."""
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    machines = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    return int(found.get("GPU", 0)), int(found.get("CPU", 0)), machines


@contextmanager
def environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment for a while, where the user has not."""
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def quiet_ray() -> None:
    """Leave the log lines of Ray Train and Tune to their files."""
    for name in ("ray.train", "ray.tune", "ray.air"):
        logging.getLogger(name).setLevel(logging.ERROR)


def in_job(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether this process was started by `ray job submit`."""
    return JOB_CONFIG in environment


def in_uploaded_copy(folder: Path, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether this process is a Ray job in Ray's own copy of a working folder."""
    return in_job(environment) and "working_dir_files" in folder.parts


def resolve_path(
    path: Path,
    *,
    written: bool = False,
    folder: Path | None = None,
    home: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Path:
    """Return a path as an absolute one; `folder` is the current one by default.

    In an uploaded copy, what is part of the copy is read from it; whatever is `written`, or is not
    in the copy, lies in `<home>/vrtspike`.
    """
    folder = Path.cwd() if folder is None else folder
    path = path.expanduser()
    if in_uploaded_copy(folder, environment) and (written or not (folder / path).exists()):
        folder = (Path.home() if home is None else home) / "vrtspike"
    return folder / path


def resolve_place(where: str) -> Folder:
    """Return a folder by its path, made absolute, or by its URI."""
    folder = Folder.at(where)
    return folder if folder.remote else Folder(str(resolve_path(folder.path)))


def resolve_paths(
    config: Config,
    *,
    folder: Path | None = None,
    home: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Config:
    """Return the configuration with every path resolved; the runs' folder is written, and names of
    packaged weights stay."""
    from pydantic import BaseModel

    from vrtspike.config.config import Config

    if in_uploaded_copy(Path.cwd() if folder is None else folder, environment):
        kept = resolve_path(Path(), written=True, folder=folder, home=home, environment=environment)
        logger.info("relative paths lie in %s: this job's working folder is a copy", kept)

    def resolved_path(path: Path, at: tuple[str, ...]) -> Path:
        written = at == ("run", "root")
        return resolve_path(
            path, written=written, folder=folder, home=home, environment=environment
        )

    def resolve(section: BaseModel, at: tuple[str, ...]) -> BaseModel:
        changes: dict[str, object] = {}
        for name in type(section).model_fields:
            value, place = getattr(section, name), (*at, name)
            if isinstance(value, BaseModel):
                changes[name] = resolve(value, place)
            elif place == INIT_WEIGHTS:
                if value is not None:
                    changes[name] = tuple(
                        one if packaged(one) else str(resolved_path(Path(one), place))
                        for one in value
                    )
            elif isinstance(value, Path):
                changes[name] = resolved_path(value, place)
            elif isinstance(value, tuple) and any(isinstance(v, Path) for v in value):
                changes[name] = tuple(resolved_path(v, place) for v in value)
        return section.model_copy(update=changes)

    resolved = resolve(config, ())
    assert isinstance(resolved, Config)
    return resolved
