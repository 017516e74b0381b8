"""Objects that any API server takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Document = dict[str, Any]
OTHER_PROXY = "service.kubernetes.io/service-proxy-name"
HEADLESS = "service.kubernetes.io/headless"


def service(name: str, address: str = "10.96.1.1", *, port: int = 80, **labels: str) -> Document:
    """Return a Service; `address` "None" makes it headless."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": port}]},
    }


def endpoint_slice(
    name: str, addresses: Sequence[str] = ("10.1.0.1",), *, of: str = "web", **labels: str
) -> Document:
    """Return an EndpointSlice of a Service."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": of, **labels},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    }


def node(name: str, *, zone: str = "z1") -> Document:
    """Return a Node."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
        "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]},
    }


def service_cidr(name: str, network: str) -> Document:
    """Return a ServiceCIDR."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": name},
        "spec": {"cidrs": [network]},
    }


def event(name: str, **changes: Any) -> Document:
    """Return an Event about a Node; a change to None leaves the field out."""
    document = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "default"},
        "eventTime": "2026-01-02T03:04:05.000006Z",
        "reportingController": "kube-proxy",
        "reportingInstance": "kube-proxy-n1",
        "action": "StartKubeProxy",
        "reason": "Starting",
        "type": "Normal",
        "regarding": {"kind": "Node", "name": "n1", "uid": "n1"},
        **changes,
    }
    return {field: value for field, value in document.items() if value is not None}
