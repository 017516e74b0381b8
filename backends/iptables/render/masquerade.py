"""Which connections are masqueraded, and let through FORWARD: translated ones alone. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from backends.iptables.render.dispatch import Dispatch
from backends.iptables.render.node import LOOPBACK
from backends.iptables.render.rules import (
    NEVER,
    TRANSLATED,
    Account,
    Feature,
    Options,
    counting,
)
from kproxy.core.addresses import Family
from kproxy.core.table import ServicePort

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


class Masquerade:
    """The chains for it, and where one match cannot tell hairpins, a tree over all endpoints."""

    def __init__(self, family: Family, options: Options) -> None:
        self._family = family
        self._options = options
        self.lists_hairpins = Feature.HAIRPIN_MATCH in options.without
        self.tree = Dispatch("NH", family, ports=False)
        self._users: Counter[str] = Counter()

    def add(self, entry: ServicePort) -> None:
        """Take in the endpoints of a service port."""
        for address in self._addresses(entry):
            self._users[address] += 1
            if self._users[address] == 1:
                self.tree.put((f"-s {address} -j KPROXY-MASQUERADE",), address=address)

    def remove(self, entry: ServicePort) -> None:
        """Undo `add`."""
        for address in self._addresses(entry):
            self._users[address] -= 1
            if not self._users[address]:
                del self._users[address]
                self.tree.put(None, address=address)

    def mark(self) -> Iterator[str]:
        """Return the rule that every request for masquerade leads to."""
        yield self._options.mark

    def postrouting(self) -> Iterator[str]:
        """Return the rules that find what is masqueraded."""
        yield f"{self._options.asked_for_masquerade} -j KPROXY-MASQUERADE"
        translated = f"! -o lo {TRANSLATED}"
        if self.lists_hairpins:
            yield f"{translated} -j KPROXY-HAIRPIN"
        else:
            to_sender = f'-m bpf --bytecode "{_RETURN_TO_SENDER[self._family]}"'
            yield f"{translated} {to_sender} -j KPROXY-MASQUERADE"

    def hairpins(self) -> Iterator[str]:
        """Return the rules that enter the tree over the endpoints."""
        yield from self.tree.root_rules() or (NEVER,)

    def masquerade(self, *, localhost: bool) -> Iterator[str]:
        """Return the rules that masquerade a connection; `localhost`: some come from loopback."""
        bit = f"{1 << self._options.masquerade_bit:#x}"
        yield f"-j MARK --set-xmark 0x0/{bit}"
        if self._options.counts and localhost:
            # The first packet of a connection that was accepted, as every packet in this table.
            accepted = f"-m conntrack --ctorigdst {LOOPBACK[self._family]}"
            yield f"{accepted} {counting(self._family, Account.LOCALHOST)}"
        yield "-j MASQUERADE --random-fully"

    def forward(self, *, drop_invalid: bool) -> Iterator[str]:
        """Return the rules for what the node forwards."""
        if drop_invalid:
            counted = ""
            if self._options.counts:
                counted = f"{counting(self._family, Account.INVALID)} "
            yield f"-m conntrack --ctstate INVALID {counted}-j DROP"
        yield f"{self._options.asked_for_masquerade} -j ACCEPT"
        yield f"{TRANSLATED} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"

    def _addresses(self, entry: ServicePort) -> set[str]:
        if not self.lists_hairpins:
            return set()
        return {target.address for target in (*entry.targets, *entry.local_targets)}
