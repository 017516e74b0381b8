"""What scheduler and kubelets would do with a DaemonSet's pods, on nodes that are only objects."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

import yaml

from tests.deploy.shipped import Object
from tests.support.cluster.api import ApiError
from tests.support.cluster.control_plane import ControlPlane
from tests.support.waiting import LONGEST_S, until

_CONFIG_MAPS = "/api/v1/namespaces/kube-system/configmaps"
_PODS = "/api/v1/namespaces/kube-system/pods"
# By the controller, which is at work too: the next look shows it.
_CHANGED_MEANWHILE = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
_MERGE = "application/merge-patch+json"


def node(name: str) -> Object:
    """Return a Linux node."""
    labels = {"kubernetes.io/os": "linux"}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def until_images(cluster: ControlPlane, expected: dict[str, list[str]]) -> None:
    """Play the nodes until the containers that run on each have these images."""
    _until(cluster, expected, _image)


def until_modes(cluster: ControlPlane, expected: dict[str, list[str]]) -> None:
    """Play the nodes until the pods of kproxy on each have these modes and privileges."""
    config_maps = {
        each["metadata"]["name"]: each["data"] for each in cluster.api.list(_CONFIG_MAPS)
    }

    def mode(pod: Object) -> str:
        (name,) = (
            each["configMap"]["name"] for each in pod["spec"]["volumes"] if "configMap" in each
        )
        config = yaml.safe_load(config_maps[name]["config.conf"])
        return config["mode"] + (", privileges of ebpf" if pod["spec"].get("hostPID") else "")

    _until(cluster, expected, mode)


def _image(pod: Object) -> str:
    (container,) = pod["spec"]["containers"]
    return str(container["image"])


def _until(
    cluster: ControlPlane, expected: dict[str, list[str]], tell: Callable[[Object], str]
) -> None:
    until(lambda: _play(cluster, tell) == expected, within_s=LONGEST_S, what=f"{expected}")


def _play(cluster: ControlPlane, tell: Callable[[Object], str]) -> dict[str, list[str]]:
    """Take every pod one step on, and return what is to be told of those on each node."""
    running: dict[str, list[str]] = {}
    for pod in cluster.api.list(_PODS):
        try:
            runs = _step(cluster, pod)
        except ApiError as error:
            if error.status not in _CHANGED_MEANWHILE:
                raise
            continue
        if runs:
            running.setdefault(pod["spec"]["nodeName"], []).append(tell(pod))
    return {name: sorted(told) for name, told in running.items()}


def _step(cluster: ControlPlane, pod: Object) -> bool:
    """Take a pod one step on; say whether it runs already."""
    path = f"{_PODS}/{pod['metadata']['name']}"
    if "deletionTimestamp" in pod["metadata"]:
        cluster.api.call("DELETE", f"{path}?gracePeriodSeconds=0")
    elif "nodeName" not in pod["spec"]:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod["metadata"]["name"]},
            "target": {"kind": "Node", "name": _wanted_node(pod)},
        }
        cluster.api.call("POST", f"{path}/binding", binding)
    elif not pod["status"].get("conditions"):
        ready = {
            "type": "Ready",
            "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        status = {"status": {"phase": "Running", "conditions": [ready]}}
        cluster.api.call("PATCH", f"{path}/status", status, content_type=_MERGE)
    else:
        return True
    return False


def _wanted_node(pod: Object) -> str:
    """Return the node that the DaemonSet made this pod for."""
    affinity = pod["spec"]["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    (name,) = terms[0]["matchFields"][0]["values"]
    return str(name)
