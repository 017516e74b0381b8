"""What an operator installs, and the volumes that its pods then find on a test node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from kproxy.core.addresses import Family
from tests.deploy.image.runtime_config import Volumes
from tests.deploy.pod_template import ConfigMap, HostPath, PodTemplate, Token, pod_template
from tests.deploy.shipped import Object, kubeadm, kustomized_for, of_kind
from tests.support.cluster.control_plane import ControlPlane
from tests.support.ebpf.place import Place
from tests.support.net import plan
from tests.support.node.node import Node
from tests.support.packets.table import NODE_NAME

# What the operator of this cluster fills in, and that the size of connection tracking and the root
# of all control groups stay as they are: they are not the test node's own.
_CONFIGURATION = {
    "clusterCIDR": f"{plan.CLUSTER_CIDR},{plan.in_family(plan.CLUSTER_CIDR, Family.IPV6)}",
    "conntrack": {"maxPerCore": 0},
    "kproxy": {"ebpf": {"cgroup": "/sys/fs/cgroup"}},
}


@dataclass(frozen=True, slots=True)
class Installed:
    """A DaemonSet's pod, and the other objects that it needs."""

    pod: PodTemplate
    config_map: Object
    others: tuple[Object, ...]


def kubeadms() -> Installed:
    """Return what kubeadm made for kube-proxy."""
    return _installed([*kubeadm("rbac"), *kubeadm("configmap"), *kubeadm("daemonset")])


def ours(mode: str = "iptables") -> Installed:
    """Return what our manifests make."""
    return _installed(kustomized_for(mode))


def _installed(objects: Sequence[Object]) -> Installed:
    daemon_set, config_map = of_kind(objects, "DaemonSet"), of_kind(objects, "ConfigMap")
    others = tuple(each for each in objects if each not in (daemon_set, config_map))
    return Installed(pod_template(daemon_set, {"spec.nodeName": NODE_NAME}), config_map, others)


def volumes(
    installed: Installed,
    plane: ControlPlane,
    node: Node,
    place: Place,
    folder: Path,
    *,
    port: int,
) -> Volumes:
    """Fill a pod's volumes; `port` of the node's loopback leads to the API server.

    The API server gets the pod's ServiceAccount with what is bound to it.
    """
    for each in installed.others:
        plane.api.apply(each)
    config, token, modules = (folder / name for name in ("config", "token", "modules"))
    for each in (config, token, modules):
        each.mkdir()
    for name, content in _edited(installed.config_map, port).items():
        (config / name).write_text(content)
    account = installed.pod.service_account
    (token / "token").write_text(plane.service_account_token("kube-system", account))
    (token / "ca.crt").write_bytes(plane.identities.authority.read_bytes())
    (token / "namespace").write_text("kube-system")
    node.lock.touch(0o600)
    return {
        ConfigMap(installed.config_map["metadata"]["name"]): config,
        Token(): token,
        HostPath("/run/xtables.lock", "FileOrCreate"): node.lock,
        HostPath("/lib/modules", ""): modules,
        HostPath("/sys/fs/bpf", "Directory"): place.bpffs,
        # Where the container's mounts are made, the tree of version 2 is there (container.py).
        HostPath("/sys/fs/cgroup", "Directory"): Path("/sys/fs/cgroup", place.cgroup.name),
    }


def _edited(config_map: Object, port: int) -> dict[str, str]:
    documents = {name: yaml.safe_load(text) for name, text in config_map["data"].items()}
    (cluster,) = documents["kubeconfig.conf"]["clusters"]
    cluster["cluster"]["server"] = f"https://127.0.0.1:{port}"
    documents["config.conf"] |= _CONFIGURATION
    return {name: json.dumps(document) for name, document in documents.items()}
