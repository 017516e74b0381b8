"""A node on which one data path follows another, as the contract of changes wants it."""

from __future__ import annotations

import itertools

from backends.iptables.driver.backend import IptablesBackend
from backends.iptables.render.renderer import Renderer
from backends.iptables.render.rules import Options
from backends.iptables.withdrawal import FormerVariant
from backends.kernel.transactions import Transactions
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family, canonical_network
from kproxy.core.compile import Compiler
from kproxy.core.objects import Kind, Protocol
from kproxy.core.parse import from_builtins
from kproxy.core.settings import Settings
from kproxy.core.store import Replaced
from tests.support.iptables.applied import run, saved
from tests.support.net.plan import CLUSTER_CIDR, POD1, POD2, in_family
from tests.support.node.conversations import Conversations
from tests.support.node.web import FRONTENDS, SOURCES, web


class Rules:
    """Rules of one variant of iptables, as one side of a change."""

    def __init__(self, family: Family, variant: Variant) -> None:
        self._family = family
        self._variant = variant

    def backend(self):
        """Return a new backend."""
        return IptablesBackend(
            family=self._family,
            variant=self._variant,
            renderer=Renderer(self._family, Options()),
            transactions=Transactions(),
        )

    def former(self):
        """Return them as a process that does not write them sees them."""
        return FormerVariant(self._family, self._variant)

    def left(self):
        """Return what of them is in the kernel."""
        lines = saved(self._family, self._variant).splitlines()
        ours = [line for line in lines if "KPROXY-" in line and "KPROXY-IPVS-" not in line]
        # Without the counters: open connections send again when the machine is busy.
        return [line.partition("] ")[2] or line for line in ours]

    def forget(self):
        """Let the kernel forget the connections that they translate."""
        run("conntrack -F")


class PathChange:
    """The change from one side to another, in the namespace of a node that is entered."""

    def __init__(self, talk: Conversations, family: Family, first, second) -> None:
        self.family = family
        self._talk = talk
        self._first = first
        self._second = second
        self._opened = []

    def first(self):
        self._opened.append(self._first.backend())
        return self._opened[-1]

    def second(self):
        self._opened.append(self._second.backend())
        return self._opened[-1]

    def former(self):
        return self._first.former()

    def left(self):
        return self._first.left()

    def table(self, *pods):
        cidr = canonical_network(in_family(CLUSTER_CIDR, self.family))
        compiler = Compiler(Settings("node", cluster_cidrs=(cidr,)), [self.family])
        service, *slices = [from_builtins(each) for each in web(*pods)]
        compiler.apply(
            [Replaced(Kind.SERVICE, (service,)), Replaced(Kind.ENDPOINT_SLICE, tuple(slices))]
        )
        return compiler.tables[self.family]

    def pods(self):
        return POD1, POD2

    def converse(self):
        protocols = (Protocol.TCP, Protocol.UDP)
        return [
            self._talk.open(source, frontend, protocol, self.family)
            for source, frontend, protocol in itertools.product(SOURCES, FRONTENDS, protocols)
        ]

    def forget(self):
        self._talk.hang_up()  # else what one of them sends again would be tracked anew
        for side in (self._first, self._second):
            side.forget()

    def close(self):
        """Let go of what the backends hold."""
        for each in self._opened:
            each.close()
