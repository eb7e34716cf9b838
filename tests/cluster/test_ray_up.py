"""The files of `ray up`, through Ray's own checks, which ask no cloud; and the nodes' scripts."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import threading
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ("aws", "gcp", "on_premise")
CLOUDS = ("aws", "gcp")


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((REPOSITORY / f"cluster/{name}.yaml").read_text())
    return content


def validate(config: dict[str, Any]) -> dict[str, Any]:
    """Check a file as `ray up` does before it asks the cloud; return it with Ray's defaults."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("name", NAMES)
def test_ray_accepts_the_file(name: str) -> None:
    prepared = validate(read(name))
    head = prepared["available_node_types"][prepared["head_node_type"]]
    assert prepared["max_workers"] > 0
    assert name == "on_premise" or head["max_workers"] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(idle_timeout_minute=5), "idle_timeout_minute"),
        (lambda c: c["available_node_types"]["gpu"].update(max_worker=2), "max_worker"),
        (lambda c: c["available_node_types"]["gpu"].pop("node_config"), "node_config"),
        (lambda c: c.update(head_node_type="haed"), "head_node_type"),
        (lambda c: c.update(setup_commands=[["ls"]]), "ls"),
    ],
)
@pytest.mark.parametrize("name", CLOUDS)
def test_ray_finds_a_mistake(
    name: str, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    broken = read(name)
    change(broken)
    with pytest.raises((ValidationError, ValueError, TypeError), match=said):
        validate(broken)


@pytest.mark.parametrize("name", CLOUDS)
def test_the_head_stays_and_nodes_come_and_go(name: str) -> None:
    types = read(name)["available_node_types"]
    spot = {
        kind: "InstanceMarketOptions" in node["node_config"]
        or node["node_config"].get("scheduling", {}).get("provisioningModel") == "SPOT"
        for kind, node in types.items()
    }
    assert spot == {"head": False, "cpu": True, "gpu": True}
    assert types["head"]["resources"] == {"CPU": 2}
    assert all(
        types[kind]["min_workers"] == 0 < types[kind]["max_workers"] for kind in types if spot[kind]
    )
    (watch,) = [c for c in read(name)["worker_start_ray_commands"] if "watch_spot.sh" in c]
    assert f"watch_spot.sh {name} " in watch


@pytest.mark.parametrize("kind", ("head", "cpu", "gpu"))
def test_aws_knows_every_field_of_a_node(kind: str) -> None:
    """Checked against botocore's description of the request that starts nodes."""
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    request = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    node = read("aws")["available_node_types"][kind]["node_config"] | {"MinCount": 1, "MaxCount": 1}
    assert not ParamValidator().validate(node, request).has_errors()
    node["InstanceMarketOption"] = {"MarketType": "spot"}
    assert "InstanceMarketOption" in ParamValidator().validate(node, request).generate_report()


@pytest.mark.parametrize("name", NAMES)
def test_nodes_get_the_token_and_all_that_the_package_is_built_of(name: str) -> None:
    mounts = read(name)["file_mounts"]
    assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    assert mounts == {f"~/checkout/{source}": source for source in mounts.values()}
    assert all((REPOSITORY / source).exists() for source in mounts.values())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = {"pyproject.toml", "constraints.txt", "vrtspike", "cluster"}
    assert set(mounts.values()) == needed | {project["readme"], *project["license-files"]}


@pytest.mark.parametrize("name", NAMES)
def test_the_shell_can_read_every_command(name: str) -> None:
    from ray.autoscaler._private.command_runner import _with_interactive

    config = validate(read(name))
    lists = [value for key, value in config.items() if key.endswith("_commands")]
    commands = [command for commands in lists for command in commands]
    assert len(commands) >= 6
    for command in commands:
        shell = " ".join(_with_interactive(command))
        done = subprocess.run(["bash", "-n", "-c", shell], capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done.stderr
        inner = subprocess.run(["bash", "-n", "-c", f"({command})"], capture_output=True)
        assert inner.returncode == 0, command


def stub(folder: Path, name: str, says: str = "") -> Path:
    """Write a program that notes its arguments, one a line, in <name>.said; return that file."""
    said = folder / f"{name}.said"
    program = folder / name
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {said}\necho "{says}"\n')
    program.chmod(0o755)
    return said


def run(script: str, *arguments: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a node's script with programs of the home's folder in the first place."""
    environment = {"HOME": str(home), "PATH": f"{home}:{os.environ['PATH']}"} | more
    return subprocess.run(
        ["bash", str(REPOSITORY / "cluster" / script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_a_node_gets_the_tested_versions_and_its_environment_once(tmp_path: Path) -> None:
    version = re.search(r"uv_version=(\S+)", (REPOSITORY / "cluster/node.sh").read_text())
    assert version
    said = stub(tmp_path, "uv", f"uv {version[1]}")
    for _ in range(2):
        done = run("node.sh", "boto3==1.2.3", home=tmp_path)
        assert done.returncode == 0, done.stderr
    words = said.read_text().splitlines()
    assert str(REPOSITORY / "constraints.txt") in words and "boto3==1.2.3" in words
    (line,) = (tmp_path / ".bashrc").read_text().splitlines()
    for setting in ("RAY_AUTH_MODE=token", "RAY_JOB_STOP_WAIT_TIME_S=120", "/venv/bin:"):
        assert setting in line


class Metadata(BaseHTTPRequestHandler):
    """What a node of AWS or Google asks about itself; `calm` times it is not yet to go."""

    calm = 0

    def do_PUT(self) -> None:
        self._answer("a-token" if self.path == "/latest/api/token" else None)

    def do_GET(self) -> None:
        cls = type(self)
        gone, cls.calm = cls.calm <= 0, cls.calm - 1
        if self.path == "/latest/meta-data/spot/instance-action":
            known = self.headers.get("X-aws-ec2-metadata-token") == "a-token"
            self._answer('{"action": "terminate"}' if known and gone else None)
        else:
            asked = self.path == "/computeMetadata/v1/instance/preempted"
            allowed = self.headers.get("Metadata-Flavor") == "Google"
            self._answer(("TRUE" if gone else "FALSE") if asked and allowed else None)

    def _answer(self, text: str | None) -> None:
        self.send_response(404 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def metadata() -> Iterator[str]:
    """Serve a node's metadata; give host:port."""
    Metadata.calm = 2
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("flock")), reason="needs curl and flock"
)
@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_spot_node_that_is_taken_is_drained_once(
    cloud: str, metadata: str, tmp_path: Path
) -> None:
    from ray.scripts.scripts import cli

    said = stub(tmp_path, "ray")
    done = run("watch_spot.sh", cloud, "0.05", home=tmp_path, METADATA_HOST=metadata)
    assert done.returncode == 0, done.stderr
    assert Metadata.calm == -1  # it was asked until it said yes
    name, *arguments = said.read_text().splitlines()
    context = cli.commands[name].make_context(name, arguments)
    assert context.params["reason"] == "DRAIN_NODE_REASON_PREEMPTION"
    assert 0 < context.params["deadline_remaining_seconds"] < (120 if cloud == "aws" else 30)


def test_an_unknown_cloud_is_refused(tmp_path: Path) -> None:
    done = run("watch_spot.sh", "azure", home=tmp_path)
    assert done.returncode == 2 and "unknown cloud azure" in done.stderr
