"""What the rules of several data paths are written with. Pure.

A chain's first rule carries a comment `kp:<digest>:<number of rules>`. The kernel and its tools
reformat rules, so text is never compared or read for meaning: the digest says what was written,
the number of rules says whether something was added or taken away since.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence

from kproxy.core.addresses import Family
from kproxy.core.image import Key
from kproxy.core.table import (
    FromInterface,
    FromInterfacePrefix,
    FromNetwork,
    LocalPods,
    NodeRules,
    Undetected,
)

COMMENT_PREFIX = "kp:"

_TARGET = re.compile(r"(?<!\S)-[jg] ")  # names may end in these letters

# Classic BPF over the network header (linux/filter.h): match if source equals destination.
# Each pair of words is loaded at its offset and compared; a difference jumps to the last `ret 0`.
_RETURN_TO_SENDER = {
    Family.IPV4: "6,32 0 0 12,7 0 0 0,32 0 0 16,29 0 1 0,6 0 0 65535,6 0 0 0",
    Family.IPV6: (
        "18,32 0 0 8,7 0 0 0,32 0 0 24,29 0 13 0,32 0 0 12,7 0 0 0,32 0 0 28,29 0 9 0,"
        "32 0 0 16,7 0 0 0,32 0 0 32,29 0 5 0,32 0 0 20,7 0 0 0,32 0 0 36,29 0 1 0,"
        "6 0 0 65535,6 0 0 0"
    ),
}


def chain_key(table: str, chain: str) -> str:
    """Return the image key of one of our chains."""
    return f"{table}/{chain}"


def jump_key(table: str, base: str, chain: str) -> str:
    """Return the image key of our jump from a built-in chain."""
    return f"jump/{table}/{base}/{chain}"


def set_key(name: str) -> str:
    """Return the image key of an ipset."""
    return f"set/{name}"


def sysctl_key(name: str) -> str:
    """Return the image key of a setting of the node, by the name that sysctl(8) knows."""
    return f"sysctl/{name}"


def split_key(key: Key) -> tuple[str, ...]:
    """Return a key's parts.

    (table, chain), ("jump", table, base, chain), ("set", name) or ("sysctl", name).
    """
    assert isinstance(key, str), "the keys of objects that have names are text"
    return tuple(key.split("/"))


def describe(key: Key) -> str:
    """Return what an object is, for a person."""
    match split_key(key):
        case ("jump", table, base, chain):
            return f"the jump from {base} to {chain} in table {table}"
        case ("set", name):
            return f"the ipset {name}"
        case ("sysctl", name):
            return f"the setting {name}"
        case (table, chain):
            return f"the chain {chain} in table {table}"
        case _:
            raise ValueError(f"no object has the key {key!r}")


def fingerprint(rules: Sequence[str]) -> str:
    """Return `<digest>:<number of rules>` of a chain's rules."""
    digest = hashlib.blake2b("\n".join(rules).encode(), digest_size=8).hexdigest()
    return f"{digest}:{len(rules)}"


def rules_of(value: bytes) -> int:
    """Return of how many rules this is the fingerprint."""
    return int(value.rpartition(b":")[2])


def signed(rules: Sequence[str]) -> tuple[str, ...]:
    """Return the rules with their fingerprint in the first one's comment."""
    first = rules[0]
    found = _TARGET.search(first)
    assert found is not None, f"a rule without a target: {first}"
    comment = f"-m comment --comment {COMMENT_PREFIX}{fingerprint(rules)}"
    return (f"{first[: found.start()]}{comment} {first[found.start() :]}", *rules[1:])


def port_unreachable(family: Family) -> str:
    """Return the name of the ICMP answer that refuses a port."""
    return "icmp-port-unreachable" if family is Family.IPV4 else "icmp6-port-unreachable"


def pod_match(local_pods: LocalPods, *, negated: bool) -> str | None:
    """Return the match for traffic of local pods, or of everybody else; None if unknown."""
    no = "! " if negated else ""
    match local_pods:
        case FromNetwork(network):
            return f"{no}-s {network}"
        case FromInterface(name):
            return f"{no}-i {name}"
        case FromInterfacePrefix(prefix):
            return f"{no}-i {prefix}+"
        case Undetected():
            return None


def to_sender(family: Family) -> str:
    """Return the match for packets whose source and destination are the same address."""
    return f'-m bpf --bytecode "{_RETURN_TO_SENDER[family]}"'


def unallocated(rules: NodeRules) -> Iterator[str]:
    """Return the rules that drop what no Service has in a ServiceCIDR, nor anybody else."""
    for shared in rules.shared_ranges:
        yield f"-d {shared.network} -j RETURN"
    for cidr in rules.service_cidrs:
        yield f"-d {cidr} -j DROP"
