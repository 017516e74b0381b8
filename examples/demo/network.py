"""The machines of the demo, each a network namespace.

::

    outside ──┐
              ├── lan (a switch)
    node-a ───┤
      ├ pods  │
    node-b ───┘
      └ pods

Namespaces have no names: they are gone when this process and its children are gone.
"""

from __future__ import annotations

from collections.abc import Iterable

from bench.links import forward_packets, ip, join, prepare
from examples.demo.plan import (
    NODE_A,
    NODE_ADDRESSES,
    NODE_B,
    OFFICE,
    OUTSIDE,
    OUTSIDE_ADDRESSES,
    Pod,
)
from tests.support.net.namespace import Namespace

_LAN = "lan"
_POD_GATEWAYS = ("169.254.1.1", "fe80::1")
_TO_SERVICES = ("203.0.113.0/24", "198.51.100.0/24")  # what the outside routes to node-a


def build(pods: Iterable[Pod]) -> dict[str, Namespace]:
    """Make every machine and connect them; return them by name."""
    pods = list(pods)
    names = (_LAN, OUTSIDE, NODE_A, NODE_B, *(pod.name for pod in pods))
    machines = {name: Namespace(name) for name in names}
    for machine in machines.values():
        prepare(machine)
    for node in (NODE_A, NODE_B):
        forward_packets(machines[node])
    _connect_lan(machines)
    for pod in pods:
        _connect_pod(machines, pod)
    _route(machines, pods)
    return machines


def _connect_lan(machines: dict[str, Namespace]) -> None:
    lan = machines[_LAN]
    ip(lan, ["link add br0 type bridge", "link set br0 up"])
    for name, addresses in {**NODE_ADDRESSES, OUTSIDE: OUTSIDE_ADDRESSES}.items():
        join(lan, name, machines[name])
        ip(lan, [f"link set {name} master br0"])
        ipv4, ipv6 = addresses
        ip(
            machines[name],
            [f"addr add {ipv4}/24 dev eth0", f"addr add {ipv6}/64 dev eth0 nodad"],
        )


def _connect_pod(machines: dict[str, Namespace], pod: Pod) -> None:
    """Join a pod and its node as most network plugins do: a link of two ends and a host route."""
    node, own = machines[pod.node], machines[pod.name]
    link = _link_name(pod)
    join(node, link, own)
    ipv4, ipv6 = _POD_GATEWAYS
    ip(node, [f"addr add {ipv4}/32 dev {link}", f"addr add {ipv6}/64 dev {link} nodad"])
    ip(node, [f"route add {address} dev {link}" for address in pod.addresses])
    for address in pod.addresses:
        length = 128 if ":" in address else 32
        ip(own, [f"addr add {address}/{length} dev eth0" + (" nodad" if length == 128 else "")])
    ip(
        own,
        [
            "addr add fe80::2/64 dev eth0 nodad",
            f"route add {ipv4} dev eth0 scope link",
            f"route add default via {ipv4} dev eth0 src {pod.addresses[0]}",
            f"route add ::/0 via {ipv6} dev eth0",
        ],
    )


def _route(machines: dict[str, Namespace], pods: Iterable[Pod]) -> None:
    """Tell each node where the other's pods are, and the outside where the Services are."""
    outside_ipv4, outside_ipv6 = OUTSIDE_ADDRESSES
    for node in (NODE_A, NODE_B):
        ip(
            machines[node],
            [
                f"route add default via {outside_ipv4}",
                f"route add ::/0 via {outside_ipv6}",
            ],
        )
    for pod in pods:
        other = NODE_B if pod.node == NODE_A else NODE_A
        for address in pod.addresses:
            via = NODE_ADDRESSES[pod.node][":" in address]
            ip(machines[other], [f"route add {address} via {via}"])
    via = NODE_ADDRESSES[NODE_A][0]
    routes = [f"route add {network} via {via}" for network in _TO_SERVICES]
    ip(machines[OUTSIDE], [f"addr add {OFFICE}/32 dev lo", *routes])


def _link_name(pod: Pod) -> str:
    """Return the name of a pod's link on its node; the kernel allows 15 characters."""
    return f"v{pod.addresses[0].replace('10.244.', '').replace('.', '-')}"
