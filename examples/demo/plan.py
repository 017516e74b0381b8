"""Who is there and who asks whom: read from the manifests, and the callers written down."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

SHOP = Path(__file__).parent.parent / "shop"
CONFIG = Path(__file__).parent.parent / "kproxy.yaml"

# Machines that are no pods. `outside` is the nodes' gateway to everywhere else.
NODE_A, NODE_B, OUTSIDE = "node-a", "node-b", "outside"
NODE_ADDRESSES = {NODE_A: ("192.0.2.1", "2001:db8::1"), NODE_B: ("192.0.2.2", "2001:db8::2")}
OUTSIDE_ADDRESSES = ("192.0.2.100", "2001:db8::100")
OFFICE = "198.18.0.5"  # a second address of `outside`


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that some EndpointSlice names; `ports` are (protocol, number) pairs."""

    name: str
    node: str
    addresses: tuple[str, ...]
    ports: tuple[tuple[str, int], ...]


class Expected(enum.Enum):
    """What has to become of a request."""

    ANSWER = "answered"
    REFUSAL = "refused"
    SILENCE = "no answer"


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who keeps asking, with a new connection for each request.

    `machine` is a pod's name or one of the machines above; `source` "" leaves the choice to the
    kernel. `seen_as` is the address that the pod must see, "" if any will do.
    """

    title: str
    machine: str
    service: str
    via: str
    address: str
    port: int
    rate: float
    protocol: str = "TCP"
    source: str = ""
    expected: Expected = Expected.ANSWER
    seen_as: str = ""


_ON_NODE_A = NODE_ADDRESSES[NODE_A][0]
_CUSTOMER = OUTSIDE_ADDRESSES[0]

_BY_LOOPBACK = Caller("node-a itself", NODE_A, "web", "localhost", "127.0.0.1", 30080, 20)
_BY_ITS_ADDRESS = replace(_BY_LOOPBACK, via="NodePort", address=_ON_NODE_A)

_CALLERS = (
    Caller("customer", OUTSIDE, "web", "NodePort", _ON_NODE_A, 30080, 80),
    Caller("pod", "storefront-1", "web", "clusterIP", "10.96.10.1", 80, 80, seen_as="10.244.1.21"),
    Caller("pod of node-b", "payments-2", "web", "NodePort", _ON_NODE_A, 30080, 20),
    _BY_LOOPBACK,
    Caller(
        "customer",
        OUTSIDE,
        "storefront",
        "LB, Local",
        "203.0.113.10",
        443,
        40,
        seen_as=_CUSTOMER,
    ),
    Caller("partner", OUTSIDE, "orders", "external IP", "198.51.100.20", 8088, 20),
    Caller("pod", "storefront-1", "cart", "sticky", "10.96.10.4", 80, 30),
    Caller(
        "pod", "orders-1", "catalog", "IPv6", "fd00:10:96::a03", 80, 30, seen_as="fd00:10:244:1::61"
    ),
    Caller("its own endpoint", "catalog-1", "catalog", "clusterIP", "10.96.10.3", 80, 20),
    Caller("pod", "cart-1", "kube-dns", "UDP", "10.96.0.10", 53, 40, protocol="UDP"),
    Caller("cash desk", OUTSIDE, "statsd", "UDP NodePort", _ON_NODE_A, 30125, 20, protocol="UDP"),
    Caller("office", OUTSIDE, "backoffice", "LB, limited", "203.0.113.20", 443, 10, source=OFFICE),
    Caller(
        "anybody else",
        OUTSIDE,
        "backoffice",
        "LB, limited",
        "203.0.113.20",
        443,
        2,
        expected=Expected.SILENCE,
    ),
    Caller(
        "pod",
        "orders-1",
        "recommendations",
        "scaled to 0",
        "10.96.10.8",
        80,
        10,
        expected=Expected.REFUSAL,
    ),
)


def callers(mode: str, fewer: float = 1.0) -> tuple[Caller, ...]:
    """Return who asks in a mode; each at a rate so many times lower than written above.

    In ipvs no NodePort answers on loopback, as with kube-proxy.
    """
    others = {_BY_LOOPBACK: _BY_ITS_ADDRESS} if mode == "ipvs" else {}
    every = (others.get(each, each) for each in _CALLERS)
    return tuple(replace(each, rate=each.rate / fewer) for each in every)


def documents(file: Path) -> list[dict[str, Any]]:
    """Return the objects of one manifest file."""
    return [each for each in yaml.safe_load_all(file.read_text()) if each]


def pods_of(objects: list[dict[str, Any]]) -> dict[str, Pod]:
    """Return the pods that the EndpointSlices among `objects` name, by name."""
    pods: dict[str, Pod] = {}
    for item in objects:
        if item["kind"] != "EndpointSlice":
            continue
        ports = tuple((port.get("protocol", "TCP"), port["port"]) for port in item["ports"])
        for endpoint in item["endpoints"]:
            reference = endpoint.get("targetRef")
            if reference is None:
                continue
            name = reference["name"]
            known = pods.get(name, Pod(name, endpoint["nodeName"], (), ()))
            pods[name] = Pod(
                name,
                known.node,
                tuple(dict.fromkeys((*known.addresses, *endpoint["addresses"]))),
                tuple(dict.fromkeys((*known.ports, *ports))),
            )
    return pods


def read_pods(folder: Path) -> dict[str, Pod]:
    """Return every pod that the manifests in `folder` name."""
    return pods_of([each for file in sorted(folder.glob("*.yaml")) for each in documents(file)])
