"""A cluster of both families, as a folder of manifests that tests rewrite."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from kproxy.core.addresses import Family
from tests.support.net import plan
from tests.support.net.plan import in_family, ipv6_of
from tests.support.packets.objects import ApiObject, endpoint_slice, node, service

POD_PORT = 8080

CONFIGURATION = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
    "kind": "KubeProxyConfiguration",
    "clusterCIDR": f"{plan.CLUSTER_CIDR},{in_family(plan.CLUSTER_CIDR, Family.IPV6)}",
    "featureGates": {"KubeProxyIPVS": True},  # without it there is no mode ipvs
}
NODE = node(pod_cidrs=(plan.POD_CIDR, in_family(plan.POD_CIDR, Family.IPV6)))


def both(
    name: str,
    cluster_ip: str,
    *endpoints: str | dict[str, object],
    ports: tuple[Mapping[str, object], ...] = (),
    slice_ports: tuple[Mapping[str, object], ...] = (
        {"name": "", "port": POD_PORT, "protocol": "TCP"},
    ),
    **spec: object,
) -> tuple[ApiObject, ...]:
    """Return a Service of both families and its slices; addresses are given as IPv4."""
    one_slice = endpoint_slice(name, *endpoints, ports=slice_ports, suffix="4")
    other_slice = endpoint_slice(name, *endpoints, ports=slice_ports, suffix="6")
    return (
        service(
            name,
            cluster_ip,
            *(dict(port) for port in ports),
            clusterIPs=[cluster_ip, ipv6_of(cluster_ip)],
            ipFamilies=["IPv4", "IPv6"],
            ipFamilyPolicy="RequireDualStack",
            **spec,
        ),
        one_slice,
        in_family(other_slice, Family.IPV6),
    )


class Manifests:
    """A folder of manifests; a file appears, changes and goes as a whole."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        self.put("node", (NODE,))

    def put(self, name: str, objects: tuple[ApiObject, ...]) -> None:
        """Write a file, in place of the one with that name."""
        new = self.path / f".{name}"
        new.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
        os.replace(new, self.path / f"{name}.json")

    def remove(self, name: str) -> None:
        """Delete a file."""
        (self.path / f"{name}.json").unlink()
