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
from backends.kernel.xtables.wording import to_sender
from kproxy.core.addresses import Family
from kproxy.core.table import ServicePort


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
            yield f"{translated} {to_sender(self._family)} -j KPROXY-MASQUERADE"

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
