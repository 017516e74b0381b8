"""A policy engine on a node that closes a pod, as kube-router writes its rules."""

from __future__ import annotations

from kproxy.core.addresses import Family
from tests.support.net.plan import in_family
from tests.support.node.node import Node

JUMP = '-m comment --comment "kube-router netpol - TEMCG2JMHZYE7H7T" -j'
CHAINS = {base: f"KUBE-ROUTER-{base}" for base in ("INPUT", "FORWARD", "OUTPUT")}


def close(node: Node, pod: str) -> None:
    """Let an engine close a pod to everybody; its jumps are first in their chains."""
    for family in Family:
        address = in_family(pod, family)
        declared = [f":{chain} - [0:0]" for chain in (*CHAINS.values(), "KUBE-POD-FW-A")]
        rules = [
            f"-A {chain} -d {address} -m conntrack --ctstate NEW -j KUBE-POD-FW-A"
            for chain in CHAINS.values()
        ]
        firewall = [
            "-A KUBE-POD-FW-A -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A KUBE-POD-FW-A -m mark ! --mark 0x10000/0x10000 -j REJECT",
        ]
        lines = ["*filter", *declared, *rules, *firewall, *_jumps(), "COMMIT", ""]
        node.iptables(family, "-restore --noflush", text="\n".join(lines))


def go_first(node: Node) -> None:
    """Let the engine find that its jumps are not the first, and put them back there."""
    for family in Family:
        gone = [f"-D {base} {JUMP} {chain}" for base, chain in CHAINS.items()]
        lines = ["*filter", *gone, *_jumps(), "COMMIT", ""]
        node.iptables(family, "-restore --noflush", text="\n".join(lines))


def _jumps() -> list[str]:
    return [f"-I {base} 1 {JUMP} {chain}" for base, chain in CHAINS.items()]
