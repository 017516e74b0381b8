"""The ways through a node, and the Services that traffic goes through.

Beside those of the cluster, which are of IPv4 alone, stand two Services of both families and all
ports that the load needs: `remote`, whose endpoints are behind the node, and `local`, whose
endpoint is the pod of the node.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from bench.cluster import (
    ENDPOINT_PORT,
    NODE_ADDRESS,
    NODE_ADDRESS6,
    NODE_NAME,
    SERVICE_PORT,
    Cluster,
    Document,
    spare_address,
    spare_address6,
)
from bench.stage import CLIENT, CLIENT6, OUTSIDE, OUTSIDE6, Stage
from kproxy.core.addresses import Family, family_of
from tests.support.net.namespace import Namespace

BULK_PORT = 5201
POD_PORT = 8090  # of pods that come and go
MOST_MOVES = 59_000
"""How many of the addresses that endpoints of the cluster move to are theirs."""
_FIRST_SPARE = 60_000  # of these addresses
_REMOTE_ENDPOINTS = 10
_FIRST_POD, MOST_PODS = 61_000, 4_000  # likewise
_LOCAL_IP, _PODS_IP = "10.112.0.2", "10.112.0.3"  # not the cluster's
_LOCAL_IP6 = "fd01::2"
_REMOTE_NODE_PORTS, _LOCAL_NODE_PORTS, _PODS_NODE_PORTS = 31_000, 31_010, 31_020  # the first
_MOST_CALLED = 100  # Services, in turn
_NAMESPACE = "bench"


class Way(enum.Enum):
    """From whom to whom, as results name it."""

    CLUSTER_IP = "clusterIP, from a pod"
    NODE_PORT = "NodePort, from outside, to another node's pod"
    NODE_PORT_LOCAL = "NodePort, from outside, to a pod of the node"
    NO_SERVICE = "no Service's, from a pod"


WAYS = {
    "clusterip": Way.CLUSTER_IP,
    "nodeport": Way.NODE_PORT,
    "nodeport-local": Way.NODE_PORT_LOCAL,
    "no-service": Way.NO_SERVICE,
}
"""Ways as options name them."""


@dataclass(frozen=True, slots=True)
class _Addresses:
    """What is found where in one family."""

    client: str
    outside: str
    node: str
    endpoints: Sequence[str]
    nobodys: str
    remote_service: str


_ADDRESSES = {
    Family.IPV4: _Addresses(
        CLIENT,
        OUTSIDE,
        NODE_ADDRESS,
        [spare_address(_FIRST_SPARE + n) for n in range(_REMOTE_ENDPOINTS)],
        spare_address(_FIRST_SPARE - 1),
        "10.112.0.1",
    ),
    Family.IPV6: _Addresses(
        CLIENT6,
        OUTSIDE6,
        NODE_ADDRESS6,
        [spare_address6(n) for n in range(_REMOTE_ENDPOINTS)],
        spare_address6(_REMOTE_ENDPOINTS),
        "fd01::1",
    ),
}


class Kind(enum.Enum):
    """What is sent: the name of a port, its protocol, its number, and that of endpoints."""

    CONNECTIONS = ("tcp", "TCP", SERVICE_PORT, ENDPOINT_PORT)
    PACKETS = ("udp", "UDP", SERVICE_PORT, ENDPOINT_PORT)
    BULK = ("bulk", "TCP", BULK_PORT, BULK_PORT)
    PODS = ("pods", "TCP", SERVICE_PORT, POD_PORT)

    def __init__(self, title: str, protocol: str, port: int, endpoint_port: int) -> None:
        self.title = title
        self.protocol = protocol
        self.port = port
        self.endpoint_port = endpoint_port

    def node_port(self, first: int) -> int:
        """Return its own of a Service's NodePorts."""
        return first + list(Kind).index(self)


@dataclass(frozen=True, slots=True)
class Target:
    """An address that clients call."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Ends:
    """Who sends, through which of the node's devices, and who receives; with their addresses."""

    sender: Namespace
    source: str
    enters_by: str
    receiver: Namespace


def ends(way: Way, stage: Stage, family: Family = Family.IPV4) -> Ends:
    """Return both ends of a way. The device of an end is called eth0."""
    receiver = stage.client if way is Way.NODE_PORT_LOCAL else stage.far
    found = _ADDRESSES[family]
    if way in (Way.CLUSTER_IP, Way.NO_SERVICE):
        return Ends(stage.client, found.client, "client", receiver)
    return Ends(stage.outside, found.outside, "outside", receiver)


def target(way: Way, kind: Kind, *, translated: bool, family: Family = Family.IPV4) -> Target:
    """Return whom to call; without translation, the endpoint."""
    found = _ADDRESSES[family]
    if way is Way.NO_SERVICE:
        return Target(found.nobodys, kind.endpoint_port)
    if not translated:
        address = found.client if way is Way.NODE_PORT_LOCAL else found.endpoints[0]
        return Target(address, kind.endpoint_port)
    if way is Way.CLUSTER_IP:
        return Target(found.remote_service, kind.port)
    first = _LOCAL_NODE_PORTS if way is Way.NODE_PORT_LOCAL else _REMOTE_NODE_PORTS
    return Target(found.node, kind.node_port(first))


def targets(
    way: Way, kind: Kind, cluster: Cluster, *, translated: bool, family: Family
) -> list[Target]:
    """Return whom clients call in turn; without translation, all endpoints of the same Services.

    Connections over IPv4 go to Services from the whole of a cluster: who looks through a list of
    rules finds one sooner than another.
    """
    if way in (Way.NO_SERVICE, Way.NODE_PORT_LOCAL):
        return [target(way, kind, translated=translated, family=family)]
    if (kind, family) != (Kind.CONNECTIONS, Family.IPV4):
        if translated:
            return [target(way, kind, translated=True, family=family)]
        return [Target(each, kind.endpoint_port) for each in _ADDRESSES[family].endpoints]
    of_way = range(cluster.services) if way is Way.CLUSTER_IP else cluster.with_node_port()
    numbers = of_way[:: max(1, len(of_way) // _MOST_CALLED)][:_MOST_CALLED]
    if not translated:
        addresses = itertools.chain.from_iterable(map(cluster.addresses, numbers))
        return [Target(each, ENDPOINT_PORT) for each in addresses]
    if way is Way.CLUSTER_IP:
        return [Target(cluster.cluster_ip(number), SERVICE_PORT) for number in numbers]
    return [Target(NODE_ADDRESS, cluster.node_port(number)) for number in numbers]


def pods_target(way: Way) -> Target:
    """Return whom to call for the pods that come and go."""
    if way is Way.CLUSTER_IP:
        return Target(_PODS_IP, Kind.PODS.port)
    return Target(NODE_ADDRESS, Kind.PODS.node_port(_PODS_NODE_PORTS))


def pod_address(number: int) -> str:
    """Return the address of such a pod."""
    return spare_address(_FIRST_POD + number)


def pods_service(ready: Sequence[str], terminating: Sequence[str] = ()) -> list[Document]:
    """Return the Service of such pods, with its slice."""
    endpoints = [
        *(_endpoint(each, "node-far") for each in ready),
        *(_endpoint(each, "node-far", terminating=True) for each in terminating),
    ]
    kinds = (Kind.PODS,)
    return [
        _service("pods", (_PODS_IP,), _PODS_NODE_PORTS, kinds),
        _slice("pods", Family.IPV4, endpoints, kinds),
    ]


def services() -> list[Document]:
    """Return the Services that the load goes through, with their slices."""
    kinds = (Kind.CONNECTIONS, Kind.PACKETS, Kind.BULK)
    remote = [found.remote_service for found in _ADDRESSES.values()]
    documents = [
        _service("load-remote", remote, _REMOTE_NODE_PORTS, kinds),
        _service("load-local", (_LOCAL_IP, _LOCAL_IP6), _LOCAL_NODE_PORTS, kinds),
    ]
    for family, found in _ADDRESSES.items():
        far = [_endpoint(each, "node-far") for each in found.endpoints]
        near = [_endpoint(found.client, NODE_NAME)]
        documents += [
            _slice("load-remote", family, far, kinds),
            _slice("load-local", family, near, kinds),
        ]
    return documents


def _endpoint(address: str, node: str, *, terminating: bool = False) -> Document:
    return {
        "addresses": [address],
        "nodeName": node,
        "conditions": {"ready": not terminating, "serving": True, "terminating": terminating},
    }


def _service(
    name: str, addresses: Sequence[str], first_node_port: int, kinds: Sequence[Kind]
) -> Document:
    ports: list[Document] = [
        {
            "name": kind.title,
            "protocol": kind.protocol,
            "port": kind.port,
            "targetPort": kind.endpoint_port,
            "nodePort": kind.node_port(first_node_port),
        }
        for kind in kinds
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": _NAMESPACE, "name": name},
        "spec": {
            "type": "NodePort",
            "clusterIP": addresses[0],
            "clusterIPs": list(addresses),
            "ipFamilies": [family_of(each).value for each in addresses],
            "ports": ports,
        },
    }


def _slice(
    name: str, family: Family, endpoints: Sequence[Document], kinds: Sequence[Kind]
) -> Document:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": _NAMESPACE,
            "name": f"{name}-{family.value.lower()}",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": family.value,
        "ports": [
            {"name": kind.title, "protocol": kind.protocol, "port": kind.endpoint_port}
            for kind in kinds
        ],
        "endpoints": list(endpoints),
    }
