"""What others have in the kernel, kubelet among them, in iptables and beside it."""

from __future__ import annotations

import ipaddress
import socket

from backends.kernel.virtual_servers import Destination, Server, Settings, VirtualServers
from kproxy.core.addresses import Family
from tests.support.ipvs.on_node import FOREIGN, IS_HERE
from tests.support.net.plan import in_family
from tests.support.node.node import Node, is_ours

# The discard port: nothing in these tests matches, so that the counters tell whether a rule is
# still the same one.
RULES = """*filter
:THEIRS - [0:0]
:KUBE-FIREWALL - [0:0]
[3:180] -A INPUT -p udp -m udp --dport 9 -m comment --comment "mentions KPROXY-FILTER" -j THEIRS
[5:300] -A FORWARD -p udp -m udp --dport 9 -j THEIRS
[7:420] -A THEIRS -p udp -m udp --sport 9 -j ACCEPT
[9:540] -A THEIRS -j RETURN
[1:60] -A OUTPUT -p udp -m udp --dport 9 -j KUBE-FIREWALL
[11:660] -A KUBE-FIREWALL -p udp -m udp --dport 9 -j DROP
COMMIT
*nat
:THEIRS - [0:0]
[2:120] -A PREROUTING -p udp -m udp --dport 9 -j THEIRS
[4:240] -A POSTROUTING -p udp -m udp --dport 9 -j MASQUERADE
[6:360] -A THEIRS -p udp -m comment --comment "x -j KPROXY-SERVICES" -j RETURN
COMMIT
*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
[8:480] -A PREROUTING -p udp -m udp --dport 9 -j MARK --set-xmark 0x1/0x1
COMMIT
"""

_NFT = """table inet theirs {
    set known { type ipv4_addr; elements = { 192.0.2.77 } }
    chain input { type filter hook input priority 5; udp dport 9 counter packets 12 bytes 720; }
}
"""


SIDES = ("ingress", "egress")
# They match nothing, so that packets pass on to whatever else is there.
_FILTERS = """qdisc add dev eth0 clsact
filter add dev eth0 ingress prio 7 bpf bytecode "1,6 0 0 0"
filter add dev eth0 egress prio 7 bpf bytecode "1,6 0 0 0"
"""


def settle(node: Node) -> None:
    """Let strangers write their rules on the node."""
    for family in Family:
        node.iptables(family, "-restore --noflush --counters", text=RULES)
    node.run("nft -f -", text=_NFT)
    node.run("ipset create theirs hash:ip")
    node.run("ipset add theirs 192.0.2.77")
    node.run("tc -batch -", text=_FILTERS)
    if IS_HERE:
        with node.network.node.entered(), VirtualServers("meddling") as kernel:
            kernel.put_servers((each, Settings("rr")) for each in map(_server, Family))
            kernel.put_destinations(map(_behind, map(_server, Family)), weight=7)


def seen(node: Node) -> list[str]:
    """Return all that is not the proxy's, with handles and counters.

    Left out are the built-in chains, which come and go with the tables, and their policies.
    """
    rules = [
        line
        for family in Family
        for line in node.saved(family)
        if not is_ours(line) and (line[0] in "[" or line.endswith(" -"))
    ]
    return [
        *rules,
        *node.run("nft -a list ruleset inet").splitlines(),
        *node.run("ipset save theirs").splitlines(),
        *(line for side in SIDES for line in _filters(node, side)),
        *(_virtual_servers(node) if IS_HERE else ()),
    ]


def _filters(node: Node, side: str) -> list[str]:
    lines = node.run(f"tc filter show dev eth0 {side}").splitlines()
    return [line for line in lines if "bytecode" in line]


def _server(family: Family) -> Server:
    address, port = FOREIGN
    return Server(family, socket.IPPROTO_TCP, _packed(address, family), port)


def _behind(server: Server) -> tuple[Server, Destination]:
    return server, Destination(_packed("192.0.2.78", server.family), server.port)


def _packed(address: str, family: Family) -> bytes:
    return ipaddress.ip_address(in_family(address, family)).packed


def _virtual_servers(node: Node) -> list[str]:
    with node.network.node.entered(), VirtualServers("looking") as kernel:
        return [
            f"{server} {settings} {kernel.destinations(server)}"
            for server, settings in kernel.servers()
            if server.port == FOREIGN[1]
        ]
