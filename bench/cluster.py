"""A made-up cluster of any size, the same for the same numbers.

Services are of IPv4 alone. They have one TCP port each and clusterIPs from anywhere in
10.96.0.0/12, every twentieth, from the first on, has a NodePort as well. Endpoints are spread over
a thousand nodes, so about one in a thousand is local.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

NODE_NAME = "node-0000"
NODE_ADDRESS, NODE_ADDRESS6 = "192.0.2.1", "2001:db8::1"
SERVICE_RANGE = "10.96.0.0/12"
POD_RANGE, POD_RANGE6 = "10.128.0.0/9", "fd00::/16"
ENDPOINT_RANGE = "10.128.0.0/10"  # its last /16 is left free for endpoints that move
ENDPOINT_RANGE6 = "fd00:128::/64"  # of the few Services that have IPv6
SERVICE_PORT = 80
ENDPOINT_PORT = 8080

_NODES = 1000
_NODE_PORT_EVERY = 20
_FIRST_NODE_PORT = 30000
_FIRST_ENDPOINT = int(ipaddress.IPv4Address("10.128.0.1"))
_FIRST_ENDPOINT6 = ipaddress.IPv6Network(ENDPOINT_RANGE6)[1]
_FIRST_SPARE = int(ipaddress.IPv4Address("10.191.0.1"))
_SEED = 20

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cluster:
    """`services` Services with `endpoints` endpoints each; number 0 has the lowest clusterIP."""

    services: int
    endpoints: int
    _cluster_ips: list[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        network = ipaddress.IPv4Network(SERVICE_RANGE)
        chance = random.Random(_SEED)
        offsets = sorted(chance.sample(range(1, network.num_addresses - 1), self.services))
        first = int(network.network_address)
        object.__setattr__(self, "_cluster_ips", [first + offset for offset in offsets])

    def cluster_ip(self, number: int) -> str:
        """Return the clusterIP of a Service."""
        return str(ipaddress.IPv4Address(self._cluster_ips[number]))

    def with_node_port(self) -> range:
        """Return the numbers of the Services that have a NodePort."""
        return range(0, self.services, _NODE_PORT_EVERY)

    def node_port(self, number: int) -> int:
        """Return the NodePort of a Service that has one."""
        return _FIRST_NODE_PORT + number // _NODE_PORT_EVERY

    def service(self, number: int) -> Document:
        """Return one Service as the API server would."""
        port: Document = {"name": "http", "port": SERVICE_PORT, "protocol": "TCP"}
        has_node_port = number % _NODE_PORT_EVERY == 0
        if has_node_port:
            port["nodePort"] = self.node_port(number)
        address = self.cluster_ip(number)
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": "bench", "name": _name(number)},
            "spec": {
                "type": "NodePort" if has_node_port else "ClusterIP",
                "clusterIP": address,
                "clusterIPs": [address],
                "ports": [port],
            },
        }

    def addresses(self, number: int) -> list[str]:
        """Return the addresses of a Service's endpoints."""
        first = _FIRST_ENDPOINT + number * self.endpoints
        return [str(ipaddress.IPv4Address(first + n)) for n in range(self.endpoints)]

    def endpoint_slice(
        self, number: int, moved: int | None = None, *, alone: bool = False
    ) -> Document:
        """Return a Service's EndpointSlice.

        `moved` gives its first endpoint the address of that number outside of the usual ones;
        `alone`: it has no others.
        """
        addresses = self.addresses(number)[: 1 if alone else None]
        if moved is not None:
            addresses[0] = spare_address(moved)
        chance = random.Random(number)
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": "bench",
                "name": f"{_name(number)}-x7k2p",
                "labels": {"kubernetes.io/service-name": _name(number)},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": ENDPOINT_PORT, "protocol": "TCP"}],
            "endpoints": [
                {
                    "addresses": [address],
                    "nodeName": f"node-{chance.randrange(_NODES):04}",
                    "conditions": {"ready": True, "serving": True, "terminating": False},
                    "targetRef": {
                        "kind": "Pod",
                        "namespace": "bench",
                        "name": f"{_name(number)}-{n}",
                    },
                }
                for n, address in enumerate(addresses)
            ],
        }

    def objects(self) -> Iterator[Document]:
        """Return every object, Services next to their slices."""
        yield _node()
        for number in range(self.services):
            yield self.service(number)
            yield self.endpoint_slice(number)


def spare_address(moved: int) -> str:
    """Return an address that an endpoint can move to."""
    return str(ipaddress.IPv4Address(_FIRST_SPARE + moved))


def spare_address6(moved: int) -> str:
    """Return an address of IPv6 that answers as an endpoint."""
    return str(_FIRST_ENDPOINT6 + moved)


def _name(number: int) -> str:
    return f"svc-{number:05}"


def _node() -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE_NAME},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": each} for each in (NODE_ADDRESS, NODE_ADDRESS6)
            ]
        },
    }
