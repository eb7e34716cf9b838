"""Starting, sharing and leaving Ray, without a word on the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vrtspike.errors import ResourceError
from vrtspike.storage.folder import Folder

pytestmark = pytest.mark.ray

PROGRAM = """
import os, subprocess, sys
import psutil
from vrtspike.runtime.ray_session import connect
from vrtspike.errors import DataFormatError
from vrtspike.runtime.refusal import find_our_error

with connect() as address:
    import ray

    @ray.remote
    def work():
        print("chatter of a worker")
        raise DataFormatError("wrong size", where="a.dat", got=1, expected=2)

    with connect() as again:
        assert again == address
    if len(sys.argv) == 1:
        listen = {
            connection.laddr.ip
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
            for connection in process.net_connections("inet")
            if connection.status == "LISTEN"
        }
        assert listen and listen <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, listen
        session = ray._private.worker._global_node.get_session_dir_path()
        assert os.stat(session).st_mode & 0o77 == 0
    assert ray.is_initialized()
    try:
        ray.get(work.remote())
    except Exception as error:
        assert str(find_our_error(error)) == "wrong size [a.dat]: got 1, expected 2"
    if len(sys.argv) == 1:
        child = [sys.executable, __file__, "child"]
        subprocess.run(child, env={**os.environ, "RAY_ADDRESS": address}, check=True)
assert not ray.is_initialized()
"""


def test_a_local_ray_is_quiet_shared_and_gone(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == ""


@pytest.mark.usefixtures("local_ray")
def test_a_folder_that_a_node_does_not_see_is_named(tmp_path: Path) -> None:
    from vrtspike.runtime.shared_folder import check_nodes_see, marker

    here = Folder(str(tmp_path))
    seen = {"run.root": (here, marker(here)), "data.source": (Folder("s3://bucket/clips"), "")}
    check_nodes_see(seen)
    with pytest.raises(ResourceError, match=r"node .*: got no .*/nowhere, expected data.shards on"):
        check_nodes_see(seen | {"data.shards": (here, "nowhere")})
