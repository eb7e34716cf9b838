"""A folder's claim is one name in the cluster, whoever opens the folder; here without a cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vrtspike.errors import ResourceError
from vrtspike.runs import actor_lock as module
from vrtspike.runs.actor_lock import claim, claimed
from vrtspike.storage.folder import Folder


class Cluster:
    """As much of Ray as claims need: actors by their name."""

    def __init__(self, free_after: int = 0) -> None:
        self.actors: dict[str, Any] = {}
        self.tries, self.free_after = 0, free_after

    def remote(self, actor: type) -> Any:
        def options(*, name: str, **_: Any) -> Any:
            def start(**arguments: Any) -> Any:
                self.tries += 1
                if name in self.actors and self.tries <= self.free_after:
                    raise ValueError(f"the name {name} is taken")
                self.actors[name] = actor(**arguments)
                return self.actors[name]

            return SimpleNamespace(remote=start)

        return SimpleNamespace(options=options)

    def get_actor(self, name: str, **_: Any) -> Any:
        if name not in self.actors:
            raise ValueError(name)
        return self.actors[name]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "0" * 56)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster(free_after=10**6)
    monkeypatch.setattr(module, "ray", found)
    monkeypatch.setattr(module, "GRACE_SECONDS", -1.0)
    return found


def test_a_folder_is_claimed_once_and_found_by_its_claim(cluster: Cluster) -> None:
    runs = Folder.at("/runs")
    first = claim(runs.below("a"), dict, answer=1)
    assert first == {"answer": 1} and claimed(runs.below("a")) is first
    assert claimed(runs.below("b")) is None
    claim(runs.below("b"), dict)
    with pytest.raises(ResourceError) as caught:
        claim(runs.below("a"), dict)
    assert "/runs/a" in str(caught.value) and "\n" not in str(caught.value)


def test_the_keys_of_a_store_do_not_make_another_folder(cluster: Cluster) -> None:
    one = Folder.at("s3://me:slash@bucket/runs?region=x&secret_key=abc")
    two = Folder.at("s3://you:other@bucket/runs?region=x")
    actor = claim(one, dict)
    assert claimed(two) is actor
    assert not any("abc" in name or "slash" in name for name in cluster.actors)


def test_a_job_that_was_killed_a_moment_ago_is_waited_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(Folder.at("/runs/a"), dict)
    monkeypatch.setattr(module, "GRACE_SECONDS", 60.0)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    cluster.tries, cluster.free_after = 0, 3
    assert claim(Folder.at("/runs/a"), dict, n=2) == {"n": 2} and cluster.tries == 4
