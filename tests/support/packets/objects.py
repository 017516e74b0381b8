"""API objects for the packet table, as short as they can be written."""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.net import plan
from tests.support.packets.table import NODE_NAME

ApiObject = Mapping[str, object]
ZONE = "zone-a"
_FAR_NODE = "node2"


def port(
    number: int, *, name: str = "", protocol: str = "TCP", node_port: int = 0
) -> dict[str, object]:
    """Return an entry of a Service's `spec.ports`."""
    entry: dict[str, object] = {"port": number, "protocol": protocol, "targetPort": 8080}
    if name:
        entry["name"] = name
    if node_port:
        entry["nodePort"] = node_port
    return entry


def service(
    name: str,
    cluster_ip: str,
    *ports: dict[str, object],
    labels: Mapping[str, str] | None = None,
    load_balancer: tuple[Mapping[str, str], ...] = (),
    **spec: object,
) -> ApiObject:
    """Return a Service; `spec` are further fields of its spec, by their API names.

    The type follows from the ports and the load balancer unless `type` is given.
    """
    kind = "ClusterIP"
    if any("nodePort" in each for each in ports):
        kind = "NodePort"
    if load_balancer:
        kind = "LoadBalancer"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": dict(labels or {})},
        "spec": {
            "type": kind,
            "clusterIP": cluster_ip,
            "ports": list(ports or (port(80),)),
            **spec,
        },
        "status": {"loadBalancer": {"ingress": [dict(each) for each in load_balancer]}},
    }


def vip(address: str) -> Mapping[str, str]:
    """Return a load balancer's status entry without an ipMode."""
    return {"ip": address}


def endpoint(
    address: str,
    *,
    node: str | None = None,
    zones: tuple[str, ...] = (),
    nodes: tuple[str, ...] = (),
    **conditions: bool,
) -> dict[str, object]:
    """Return an endpoint of a slice, on the node that its address tells unless `node` says else."""
    far = address.startswith("10.1.1.") or address == plan.NODE2
    hints: dict[str, object] = {}
    if zones:
        hints["forZones"] = [{"name": zone} for zone in zones]
    if nodes:
        hints["forNodes"] = [{"name": name} for name in nodes]
    entry: dict[str, object] = {
        "addresses": [address],
        "nodeName": node or (_FAR_NODE if far else NODE_NAME),
        "conditions": conditions,
    }
    if hints:
        entry["hints"] = hints
    return entry


def draining(address: str) -> dict[str, object]:
    """Return an endpoint whose pod is terminating and still serves."""
    return endpoint(address, ready=False, serving=True, terminating=True)


def unready(address: str) -> dict[str, object]:
    """Return an endpoint whose pod does not serve."""
    return endpoint(address, ready=False, serving=False, terminating=False)


def endpoint_slice(
    service_name: str,
    *endpoints: str | dict[str, object],
    ports: tuple[Mapping[str, object], ...] = ({"name": "", "port": 8080, "protocol": "TCP"},),
    suffix: str = "1",
    labels: Mapping[str, str] | None = None,
    address_type: str = "IPv4",
) -> ApiObject:
    """Return an EndpointSlice; an endpoint given as an address alone is ready."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service_name}-{suffix}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service_name, **(labels or {})},
        },
        "addressType": address_type,
        "endpoints": [endpoint(e) if isinstance(e, str) else e for e in endpoints],
        "ports": [dict(each) for each in ports],
    }


def slice_port(name: str, number: int, protocol: str = "TCP") -> Mapping[str, object]:
    """Return an entry of a slice's `ports`."""
    return {"name": name, "port": number, "protocol": protocol}


def node(
    *addresses: str, zone: str = ZONE, pod_cidrs: tuple[str, ...] = (plan.POD_CIDR,)
) -> ApiObject:
    """Return the Node object of the node under test, with its usual address if none is given."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": NODE_NAME,
            "labels": {"topology.kubernetes.io/zone": zone} if zone else {},
        },
        "spec": {"podCIDRs": list(pod_cidrs)},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": each} for each in addresses or (plan.NODE,)
            ]
        },
    }


def service_cidr(*cidrs: str) -> ApiObject:
    """Return a ServiceCIDR object."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": list(cidrs)},
    }
