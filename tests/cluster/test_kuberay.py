"""The manifests for KubeRay: no unknown field, and parts that fit each other."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import vrtspike
from tests.cluster.kuberay_types import check
from vrtspike.config.loader import load_config

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "cluster/kuberay"
CLAIM, CLUSTER, JOB = (
    yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    for name in ("storage", "ray_cluster", "ray_job")
)
SPEC: dict[str, Any] = CLUSTER["spec"]
GROUPS: dict[str, Any] = {group["groupName"]: group for group in SPEC["workerGroupSpecs"]}
PODS = {"head": SPEC["headGroupSpec"]} | GROUPS


def pod(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = PODS[name]["template"]["spec"]
    return spec


def environment(name: str) -> dict[str, str]:
    return {e["name"]: e["value"] for e in pod(name)["containers"][0].get("env", ())}


@pytest.mark.parametrize("manifest", [CLAIM, CLUSTER, JOB], ids=lambda manifest: manifest["kind"])
def test_every_field_is_known(manifest: dict[str, Any]) -> None:
    kind = manifest["kind"]
    check(manifest, "V1PersistentVolumeClaim" if kind == "PersistentVolumeClaim" else kind, kind)
    assert manifest["apiVersion"] == ("v1" if manifest is CLAIM else "ray.io/v1")


def test_all_manifests_are_tested() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {"storage", "ray_cluster", "ray_job"}


def rename(at: Callable[[Any], dict[str, Any]], old: str, new: str) -> Callable[[Any], None]:
    """Return a change of a cluster that misspells a field."""

    def change(spec: Any) -> None:
        found = at(spec)
        found[new] = found.pop(old)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (rename(lambda s: s, "headGroupSpec", "headGroup"), "unknown fields"),
        (rename(lambda s: s["workerGroupSpecs"][1], "maxReplicas", "max"), "unknown fields"),
        (
            rename(lambda s: s["headGroupSpec"]["template"]["spec"], "volumes", "volume"),
            "unknown fields",
        ),
        (
            rename(
                lambda s: s["workerGroupSpecs"][0]["template"]["spec"]["containers"][0],
                "image",
                "imageName",
            ),
            "unknown fields",
        ),
        (lambda s: s["workerGroupSpecs"][0].pop("template"), "missing"),
        (
            lambda s: s["headGroupSpec"]["template"]["spec"]["containers"][0].pop("name"),
            "name",
        ),
        (lambda s: s["authOptions"].update(mode="tokens"), "disabled|token"),
        (lambda s: s["workerGroupSpecs"][0].update(replicas="2"), "int is expected"),
        (lambda s: s["headGroupSpec"]["rayStartParams"].update({"num-cpus": 2}), "str is expected"),
    ],
)
def test_a_mistake_is_found(change: Callable[[Any], object], said: str) -> None:
    broken = copy.deepcopy(CLUSTER)
    change(broken["spec"])
    with pytest.raises(AssertionError, match=re.escape(said)):
        check(broken, "RayCluster", "RayCluster")


def test_the_job_runs_on_the_same_cluster() -> None:
    assert JOB["spec"]["rayClusterSpec"] == SPEC


@pytest.mark.parametrize("name", PODS)
def test_a_pod_mounts_what_it_has_and_the_claim_that_is_there(name: str) -> None:
    volumes = {volume["name"]: volume for volume in pod(name)["volumes"]}
    (container,) = pod(name)["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    claim = volumes["shared"]["persistentVolumeClaim"]["claimName"]
    assert claim == CLAIM["metadata"]["name"]
    assert container["resources"]["requests"] == container["resources"]["limits"]


@pytest.mark.parametrize("name", PODS)
def test_ray_has_the_time_to_tell_of_a_node_that_goes(name: str) -> None:
    wait = float(environment(name)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
    assert wait + 15 <= pod(name)["terminationGracePeriodSeconds"]


def test_authentication_and_autoscaling_are_on_and_the_head_trains_nothing() -> None:
    assert SPEC["authOptions"] == {"mode": "token"}
    assert SPEC["enableInTreeAutoscaling"] is True
    assert all(0 == group["minReplicas"] < group["maxReplicas"] for group in GROUPS.values())
    assert "nvidia.com/gpu" not in pod("head")["containers"][0]["resources"]["limits"]
    assert "nvidia.com/gpu" in pod("gpu")["containers"][0]["resources"]["limits"]
    assert int(environment("head")["RAY_JOB_STOP_WAIT_TIME_S"]) >= 60


def test_only_nodes_that_may_go_are_spot() -> None:
    assert "tolerations" not in pod("head")
    for name in GROUPS:
        keys = {toleration["key"] for toleration in pod(name)["tolerations"]}
        assert "cloud.google.com/gke-spot" in keys


def test_versions_are_those_that_were_tested() -> None:
    pinned = (REPOSITORY / "constraints.txt").read_text().splitlines()
    assert f"ray=={SPEC['rayVersion']}" in pinned
    tag = ".".join(vrtspike.__version__.split(".")[:2])
    images = {pod(name)["containers"][0]["image"] for name in PODS}
    assert images == {f"FILL_IN/vrtspike:{tag}"}
    assert f"/vrtspike:{tag} " in (REPOSITORY / "cluster/Dockerfile").read_text()


def test_the_job_fits_one_gpu_pod_and_keeps_all_on_the_shared_volume() -> None:
    words = JOB["spec"]["entrypoint"].split()
    config = load_config(
        REPOSITORY / words[words.index("--config") + 1].removeprefix("/opt/vrtspike/"),
        [word for word in words if "=" in word],
    )
    limits = pod("gpu")["containers"][0]["resources"]["limits"]
    assert config.run.cluster_gpus == int(limits["nvidia.com/gpu"])
    assert config.run.cluster_cpus == float(limits["cpu"])
    assert config.train.workers <= config.run.cluster_gpus
    assert config.train.workers * config.train.cpus_per_worker + 1 <= config.run.cluster_cpus
    for path in (config.run.root, config.data.source, config.data.shards):
        assert str(path).startswith("/shared/")
