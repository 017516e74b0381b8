"""Who lives where in the test network, and the same network over IPv6.

Every address is written once, as IPv4; `in_family` gives what it is called over IPv6.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TypeVar, cast

from kproxy.core.addresses import Family

# The node under test. It is the router of everybody else.
NODE = "192.0.2.10"  # eth0, towards the outside
NODE_SECOND = "198.51.100.10"  # eth1, towards the second node
NODE_POD_SIDE = "10.1.0.1"  # the pods' gateway, on every pod interface
NODE_VIP = "203.0.113.200"  # a load-balancer address that is bound on the node itself
NODE_DNS = "10.96.0.99"  # an address in the ServiceCIDR that the node has, as a DNS cache does
LOOPBACK = "127.0.0.1"

# Pods of the node under test.
POD1 = "10.1.0.11"  # behind the interface pod1
POD2 = "10.1.0.12"  # behind the interface pod2
POD3 = "10.1.0.13"  # behind the bridge cbr0

# Outside: two clients, and a pod of another node that sends to us but serves nothing.
OUTSIDE = "192.0.2.1"
CLIENT = "203.0.113.5"
CLIENT2 = "203.0.113.77"
FAR_CLIENT = "10.1.1.30"

# Pods of the second node.
NODE2 = "198.51.100.11"
FAR1 = "10.1.1.11"
FAR2 = "10.1.1.12"
FAR3 = "10.1.1.13"
FAR4 = "10.1.1.14"

POD_CIDR = "10.1.0.0/24"
FAR_POD_CIDR = "10.1.1.0/24"
CLUSTER_CIDR = "10.1.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"

NODE_ADDRESSES = (LOOPBACK, NODE, NODE_SECOND, NODE_POD_SIDE, NODE_VIP, NODE_DNS)

# Address of a machine -> the namespace that it lives in.
PLACES = {
    **dict.fromkeys(NODE_ADDRESSES, "node"),
    **dict.fromkeys((OUTSIDE, CLIENT, CLIENT2, FAR_CLIENT), "outside"),
    **dict.fromkeys((NODE2, FAR1, FAR2, FAR3, FAR4), "node2"),
    POD1: "pod1",
    POD2: "pod2",
    POD3: "pod3",
}

# The interface by which the node sees packets of each namespace; None: they are its own.
INPUT_INTERFACE = {
    "node": None,
    "outside": "eth0",
    "node2": "eth1",
    "pod1": "pod1",
    "pod2": "pod2",
    "pod3": "cbr0",
}

_IPV6_OF_NETWORK = {
    "0.0.0.0/0": "::/0",
    "127.0.0.0/8": "::1/128",
    CLUSTER_CIDR: "fd00:1::/48",
    SERVICE_CIDR: "fd00:96::/112",
    "10.0.0.0/8": "fd00::/16",
    "198.51.0.0/16": "2001:db8:51::/48",
}
_IPV6_OF_PREFIX = {
    "192.0.2.0/24": "2001:db8:2::",
    "198.51.77.0/24": "2001:db8:51:77::",
    "198.51.100.0/24": "2001:db8:51::",
    "203.0.113.0/24": "2001:db8:113::",
    POD_CIDR: "fd00:1::",
    FAR_POD_CIDR: "fd00:1:0:1::",
    "10.96.0.0/24": "fd00:96::",
    "10.97.0.0/24": "fd00:97::",
}
_ADDRESS = re.compile(r"(?<![\w.:])(\d+\.\d+\.\d+\.\d+)(?:/(\d+))?(?![\w.])")

Value = TypeVar("Value")


def in_family(value: Value, family: Family) -> Value:
    """Return `value` as it reads in a family: text and the containers that hold text.

    Over IPv6 every IPv4 address and network in it becomes its counterpart and the word IPv4
    becomes IPv6.
    """
    return value if family is Family.IPV4 else cast(Value, _to_ipv6(value))


def _to_ipv6(value: object) -> object:
    if isinstance(value, str):
        return _ADDRESS.sub(_ipv6_text, value).replace("IPv4", "IPv6")
    if isinstance(value, dict):
        return {key: _to_ipv6(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(_to_ipv6(item) for item in value)
    return value


def _ipv6_text(match: re.Match[str]) -> str:
    address, length = match[1], match[2]
    if length is None:
        text = ipv6_of(address)
        port_follows = match.string[match.end() : match.end() + 1] == ":"
        return f"[{text}]" if port_follows else text
    network = f"{address}/{length}"
    if network in _IPV6_OF_NETWORK:
        return _IPV6_OF_NETWORK[network]
    # Inside a /24 the last byte is the last of the IPv6 address too; a /24 itself is a /64.
    shorter = 64 if length == "24" else 128 - (32 - int(length))
    return f"{ipv6_of(address)}/{shorter}"


def ipv6_of(address: str) -> str:
    """Return the IPv6 address of a machine: the last byte keeps its digits."""
    if address == LOOPBACK:
        return "::1"
    if address == "0.0.0.0":
        return "::"
    first, _, last = address.rpartition(".")
    prefix = _IPV6_OF_PREFIX[f"{first}.0/24"]
    return str(ipaddress.IPv6Address(prefix + last))
