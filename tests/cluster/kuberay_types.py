"""The fields of Kubernetes objects and of KubeRay's, and a check that an object has no others.

Pods, volumes and claims are known from the official Python client's models. KubeRay's own fields
are below, as far as they are used or likely to be (ray.io/v1, release 1.5.1), in the same notation:
a type is a primitive, List[...], Dict[str, ...], a model's name, or its values with |.
"""

from __future__ import annotations

from typing import Any

from kubernetes import client

METADATA = {"apiVersion": "str", "kind": "str", "metadata": "V1ObjectMeta"}
KUBERAY: dict[str, dict[str, str]] = {
    "RayCluster": METADATA | {"spec": "RayClusterSpec"},
    "RayJob": METADATA | {"spec": "RayJobSpec"},
    "RayClusterSpec": {
        "authOptions": "AuthOptions",
        "autoscalerOptions": "AutoscalerOptions",
        "enableInTreeAutoscaling": "bool",
        "headGroupSpec": "HeadGroupSpec",
        "headServiceAnnotations": "Dict[str, str]",
        "rayVersion": "str",
        "suspend": "bool",
        "workerGroupSpecs": "List[WorkerGroupSpec]",
    },
    "AuthOptions": {"mode": "disabled|token"},
    "AutoscalerOptions": {
        "env": "List[V1EnvVar]",
        "idleTimeoutSeconds": "int",
        "image": "str",
        "imagePullPolicy": "Always|IfNotPresent|Never",
        "resources": "V1ResourceRequirements",
        "securityContext": "V1SecurityContext",
        "upscalingMode": "Default|Aggressive|Conservative",
        "version": "v1|v2",
        "volumeMounts": "List[V1VolumeMount]",
    },
    "HeadGroupSpec": {
        "enableIngress": "bool",
        "headService": "V1Service",
        "rayStartParams": "Dict[str, str]",
        "serviceType": "str",
        "template": "V1PodTemplateSpec",
    },
    "WorkerGroupSpec": {
        "groupName": "str",
        "idleTimeoutSeconds": "int",
        "maxReplicas": "int",
        "minReplicas": "int",
        "numOfHosts": "int",
        "rayStartParams": "Dict[str, str]",
        "replicas": "int",
        "suspend": "bool",
        "template": "V1PodTemplateSpec",
    },
    "RayJobSpec": {
        "activeDeadlineSeconds": "int",
        "backoffLimit": "int",
        "clusterSelector": "Dict[str, str]",
        "entrypoint": "str",
        "entrypointNumCpus": "float",
        "entrypointNumGpus": "float",
        "entrypointResources": "str",
        "jobId": "str",
        "metadata": "Dict[str, str]",
        "rayClusterSpec": "RayClusterSpec",
        "runtimeEnvYAML": "str",
        "shutdownAfterJobFinishes": "bool",
        "submissionMode": "K8sJobMode|HTTPMode|InteractiveMode|SidecarMode",
        "submitterPodTemplate": "V1PodTemplateSpec",
        "suspend": "bool",
        "ttlSecondsAfterFinished": "int",
    },
}
REQUIRED = {
    "RayCluster": {"apiVersion", "kind", "metadata", "spec"},
    "RayJob": {"apiVersion", "kind", "metadata", "spec"},
    "RayClusterSpec": {"headGroupSpec"},
    "HeadGroupSpec": {"template"},
    "WorkerGroupSpec": {"groupName", "template"},
}
PRIMITIVES: dict[str, Any] = {"str": str, "int": int, "bool": bool, "float": (int, float)}


def check(value: Any, kind: str, place: str) -> Any:
    """Raise AssertionError where a value is not of a type; return it as the client's model."""
    if kind == "object":
        return value
    if kind.startswith("List["):
        assert isinstance(value, list), f"{place}: a list is expected, got {value!r}"
        return [check(item, kind[5:-1], f"{place}[{n}]") for n, item in enumerate(value)]
    if kind.startswith("Dict[str, "):
        assert isinstance(value, dict), f"{place}: a mapping is expected, got {value!r}"
        return {key: check(item, kind[10:-1], f"{place}.{key}") for key, item in value.items()}
    if kind in PRIMITIVES:
        right = isinstance(value, PRIMITIVES[kind]) and isinstance(value, bool) == (kind == "bool")
        assert right, f"{place}: {kind} is expected, got {value!r}"
        return value
    if "|" in kind:
        assert value in kind.split("|"), f"{place}: one of {kind} is expected, got {value!r}"
        return value
    return _check_fields(value, kind, place)


def _check_fields(value: Any, kind: str, place: str) -> Any:
    model = None if kind in KUBERAY else getattr(client, kind)
    if model is None:
        fields = {name: (name, below) for name, below in KUBERAY[kind].items()}
    else:
        names = model.attribute_map.items()
        fields = {json: (name, model.openapi_types[name]) for name, json in names}
    assert isinstance(value, dict), f"{place}: a mapping is expected, got {value!r}"
    unknown = value.keys() - fields.keys()
    assert not unknown, f"{place}: unknown fields {sorted(unknown)} of {kind}"
    found = {}
    for key, item in value.items():
        name, below = fields[key]
        found[name] = check(item, below, f"{place}.{key}")
    if model is None:
        missing = REQUIRED.get(kind, set()) - value.keys()
        assert not missing, f"{place}: {sorted(missing)} missing"
        return found
    try:
        return model(**found)
    except ValueError as error:
        raise AssertionError(f"{place}: {error}") from error
