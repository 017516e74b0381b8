"""Dispatch trees: from a packet's destination to a target, through few rules whatever their number.

Pure. One tree covers one kind of key: (address, protocol, port), (protocol, port) or (address).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from backends.iptables.render import trie
from backends.iptables.render.rules import CHAIN_PREFIX, chain_name
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol

_PROTOCOLS = tuple(Protocol)
# A few dozen rules cost a new connection less than a microsecond; chains cost a change more: the
# nf_tables tool takes time quadratic in them, and legacy spends two entries on each.
_LEAF_ENTRIES = 64
_LONGEST_READABLE = 16  # nibbles; a hashed name is longer, so the two can never be equal

Suffixes = tuple[str, ...]  # what follows the match in each rule of an entry, from `-s` or `-j` on
Node = trie.Node[Suffixes]


class Dispatch:
    """One tree of chains and the edits to it.

    `kind` is the two letters that name its chains. `family` None leaves the address out of the
    key, `ports` False leaves protocol and port out.
    """

    def __init__(self, kind: str, family: Family | None, *, ports: bool = True) -> None:
        self._kind = kind
        self._family = family
        self._address_nibbles = family.bits // 4 if family is not None else 0
        self._port_nibbles = 5 if ports else 0
        self._shape = trie.Shape(
            nibbles=self._address_nibbles + self._port_nibbles,
            leaf_entries=_LEAF_ENTRIES,
            max_levels=6,
        )
        self._root: Node = trie.Leaf(())
        self._edits: dict[int, Suffixes | None] = {}
        self._chains: dict[str, tuple[trie.Slot, Node]] = {}

    def put(
        self,
        suffixes: Suffixes | None,
        *,
        address: str = "",
        protocol: Protocol | None = None,
        port: int = 0,
    ) -> None:
        """Set the rules of one destination, None to remove it. Takes effect at `settle`."""
        key = 0
        if self._address_nibbles:
            key = int(ipaddress.ip_address(address))
        if self._port_nibbles and protocol is not None:
            key = key << 20 | _PROTOCOLS.index(protocol) << 16 | port
        self._edits[key] = suffixes

    def settle(self) -> Mapping[str, tuple[str, ...] | None]:
        """Carry out the edits; return the chains that may have changed, None where gone.

        The root's rules are not among them: the caller writes those into a chain of its own.
        """
        edits = {
            key: suffixes
            for key, suffixes in self._edits.items()
            if trie.get(self._shape, self._root, key) != suffixes
        }
        self._edits = {}
        old, self._root = self._root, trie.update(self._shape, self._root, edits)
        present, gone = trie.changed_slots(self._shape, old, self._root)
        result: dict[str, tuple[str, ...] | None] = {}
        for slot in gone:
            name = self._name(slot)
            del self._chains[name]
            result[name] = None
        for slot, node in present.items():
            name = self._name(slot)
            self._chains[name] = (slot, node)
            result[name] = tuple(self._rules(node))
        return result

    @property
    def root(self) -> object:
        """The tree as it is; another object as soon as anything in it differs."""
        return self._root

    def root_rules(self) -> tuple[str, ...]:
        """Return the rules by which a chain enters this tree."""
        return tuple(self._rules(self._root))

    def chain(self, name: str) -> tuple[str, ...]:
        """Return the rules of one of this tree's chains. Raises KeyError if it is not."""
        return tuple(self._rules(self._chains[name][1]))

    def __contains__(self, name: str) -> bool:
        return name in self._chains

    def _rules(self, node: Node) -> Iterator[str]:
        if isinstance(node, trie.Leaf):
            for key, suffixes in node.entries:
                match = self._match((key, self._shape.nibbles))
                for suffix in suffixes:
                    yield f"{match} {suffix}"
        for slot, child in trie.chains_below(self._shape, node):
            if trie.is_inline(child):
                yield from self._rules(child)
            else:
                inside = trie.entrance(self._shape, slot, child)
                yield f"{self._match(inside)} -j {self._name(slot)}"

    def _name(self, slot: trie.Slot) -> str:
        prefix, nibbles = slot
        text = f"{prefix:0{nibbles}x}"
        if nibbles <= _LONGEST_READABLE:
            return f"{CHAIN_PREFIX}{self._kind}-{text}"
        return chain_name(self._kind, text)

    def _match(self, slot: trie.Slot) -> str:
        """Return the match for destinations whose key begins with the slot's nibbles."""
        prefix, nibbles = slot
        beyond = nibbles - self._address_nibbles
        parts = []
        if self._family is not None:
            address = prefix >> 4 * beyond if beyond > 0 else prefix << -4 * beyond
            length = min(4 * nibbles, self._family.bits)
            parts.append(f"-d {_address(self._family, address)}/{length}")
        if beyond > 0:
            parts.append(_port_match(prefix & (1 << 4 * beyond) - 1, beyond))
        return " ".join(parts)


def _address(family: Family, number: int) -> str:
    address = ipaddress.IPv4Address if family is Family.IPV4 else ipaddress.IPv6Address
    return str(address(number))


def _port_match(prefix: int, nibbles: int) -> str:
    """Return the match for one nibble of protocol and up to four of port number."""
    missing = 4 * (5 - nibbles)
    low = prefix << missing & 0xFFFF
    high = low | (1 << missing) - 1
    protocol = _PROTOCOLS[prefix >> 4 * (nibbles - 1)].value.lower()
    if nibbles == 1:
        return f"-p {protocol}"
    return f"-p {protocol} --dport {low}" + ("" if high == low else f":{high}")
