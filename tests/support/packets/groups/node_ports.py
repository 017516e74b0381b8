"""On which addresses of the node a NodePort holds."""

from __future__ import annotations

from kproxy.core.addresses import Family
from tests.support.net.plan import CLIENT, FAR1, LOOPBACK, NODE, NODE_SECOND, POD1, POD3
from tests.support.packets.objects import endpoint_slice, node, port, service
from tests.support.packets.table import DROP, PASS, REJECT, Case, Expected, Group, masquerade

_on = masquerade(f"{POD1}:8080")
_services = (
    service("open", "10.96.0.120", port(80, node_port=30120)),
    endpoint_slice("open", POD1),
    service("empty", "10.96.0.121", port(80, node_port=30121)),
    service("far", "10.96.0.122", port(80, node_port=30122), externalTrafficPolicy="Local"),
    endpoint_slice("far", FAR1),
)
_objects = (node(), *_services)


def _held(address: str, source: str = CLIENT) -> tuple[Case, ...]:
    """Return cases for an address where NodePorts hold."""
    return (
        Case("forwards", source, f"{address}:30120", _on),
        Case("rejects", source, f"{address}:30121", REJECT),
        Case("drops", source, f"{address}:30122", DROP),
    )


def _not_held(address: str, source: str = CLIENT) -> tuple[Case, ...]:
    """Return cases for an address where they do not."""
    return (
        Case("no forwarding", source, f"{address}:30120", PASS),
        Case("no reject", source, f"{address}:30121", PASS),
        Case("no drop", source, f"{address}:30122", PASS),
    )


def _at_loopback(expected: Expected) -> tuple[Case, ...]:
    """Return cases for 127.0.0.1; ::1 is never served."""
    to = f"{LOOPBACK}:30120"
    return (
        Case("127.0.0.1", LOOPBACK, to, expected, family=Family.IPV4),
        Case("::1", LOOPBACK, to, PASS, family=Family.IPV6),
    )


def _listed(name: str, addresses: tuple[str, ...], *cases: Case) -> Group:
    settings = {"node_port_addresses": addresses}
    return Group(f"nodePortAddresses {name}", _objects, cases, settings)


GROUPS = (
    _listed(
        "one network",
        ("198.51.100.0/24",),
        *_held(NODE_SECOND),
        *_not_held(NODE),
        Case("a pod", POD3, f"{NODE_SECOND}:30120", _on),
        Case("a pod, elsewhere", POD3, f"{NODE}:30120", PASS),
        Case("the node", NODE, f"{NODE_SECOND}:30120", _on),
        Case("the node, elsewhere", NODE, f"{NODE}:30120", PASS),
        Case("the node, elsewhere, no endpoint", NODE, f"{NODE}:30121", PASS),
        *_at_loopback(PASS),
    ),
    _listed(
        "two networks",
        ("198.51.100.0/24", "192.0.2.10/32"),
        *_held(NODE_SECOND),
        *_held(NODE),
        Case("not the pods' gateway", POD3, "10.1.0.1:30120", PASS),
    ),
    _listed("a network that the node is not in", ("203.0.113.0/25",), *_not_held(NODE)),
    _listed("primary", ("primary",), *_held(NODE), *_not_held(NODE_SECOND), *_at_loopback(PASS)),
    _listed("localhost", ("localhost",), *_not_held(NODE), *_at_loopback(_on)),
    _listed(
        "primary and localhost",
        ("primary", "localhost"),
        *_held(NODE),
        *_not_held(NODE_SECOND),
        *_at_loopback(_on),
    ),
    _listed("all", ("all",), *_held(NODE), *_held(NODE_SECOND), *_at_loopback(_on)),
    _listed(
        "with a network of length zero",
        ("198.51.100.0/24", "0.0.0.0/0"),
        *_held(NODE),
        *_held(NODE_SECOND),
        *_at_loopback(_on),
    ),
    _listed("the loopback network alone", ("127.0.0.0/8",), *_not_held(NODE), *_at_loopback(_on)),
    Group(
        "nodePortAddresses a part of loopback",
        _objects,
        (
            Case("outside", LOOPBACK, f"{LOOPBACK}:30120", PASS),
            Case("outside, no reject", LOOPBACK, f"{LOOPBACK}:30121", PASS),
            Case("just outside", LOOPBACK, "127.0.2.16:30120", PASS),
            Case("inside", LOOPBACK, "127.0.2.1:30120", _on),
            Case("inside, from another address", NODE, "127.0.2.15:30120", _on),
            Case("inside, no endpoint", LOOPBACK, "127.0.2.1:30121", REJECT),
            *_held(NODE),
            *_not_held(NODE_SECOND),
        ),
        settings={"node_port_addresses": ("127.0.2.0/28", "192.0.2.10/32")},
        family=Family.IPV4,
    ),
    Group(
        "localhostNodePorts off",
        _objects,
        (
            *_at_loopback(PASS),
            Case("no reject either", LOOPBACK, f"{LOOPBACK}:30121", PASS),
            *_held(NODE),
        ),
        settings={"localhost_ipv4": "never"},
    ),
    Group(
        "nodePortAddresses without a network of this family",
        (
            node("2001:db8:2::10"),
            service("open", "fd00:96::10", port(80, node_port=30120)),
            endpoint_slice("open", "fd00:1::11", address_type="IPv6"),
        ),
        (
            Case(
                "every address",
                "2001:db8:113::5",
                "[2001:db8:51::10]:30120",
                masquerade("[fd00:1::11]:8080"),
            ),
            Case("but ::1", "::1", "[::1]:30120", PASS),
        ),
        settings={"node_port_addresses": ("192.0.2.0/24",)},
        family=Family.IPV6,
    ),
    Group(
        "primary, but the Node has no address of this family",
        (
            node("192.0.2.10"),
            service("open", "fd00:96::10", port(80, node_port=30120)),
            endpoint_slice("open", "fd00:1::11", address_type="IPv6"),
        ),
        (
            Case(
                "every address",
                "2001:db8:113::5",
                "[2001:db8:2::10]:30120",
                masquerade("[fd00:1::11]:8080"),
            ),
        ),
        settings={"node_port_addresses": ("primary",)},
        family=Family.IPV6,
    ),
    Group(
        "primary is bindAddress, not the Node's address",
        _objects,
        (*_held(NODE_SECOND), *_not_held(NODE)),
        settings={"node_port_addresses": ("primary",), "bind_address": NODE_SECOND},
    ),
    Group(
        "primary without a Node object",
        _services,
        (
            *_held(NODE),
            *_held(NODE_SECOND),
        ),
        settings={"node_port_addresses": ("primary",)},
    ),
)
