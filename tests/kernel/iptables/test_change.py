"""From one variant of iptables to the other, by the contract of every change of the data path."""

from __future__ import annotations

import itertools

import pytest

from backends.iptables.driver.backend import IptablesBackend
from backends.iptables.render.renderer import Renderer
from backends.iptables.render.rules import Options
from backends.iptables.withdrawal import FormerVariant
from backends.kernel.transactions import Transactions
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import canonical_network
from kproxy.core.compile import Compiler
from kproxy.core.objects import Kind, Protocol
from kproxy.core.parse import from_builtins
from kproxy.core.settings import Settings
from kproxy.core.store import Replaced
from tests.support.change_contract import ChangeContract
from tests.support.iptables.applied import run, saved
from tests.support.net.network import Network
from tests.support.net.plan import CLUSTER_CIDR, POD1, POD2, in_family
from tests.support.node.conversations import Conversations
from tests.support.node.web import FRONTENDS, SOURCES, web

pytestmark = pytest.mark.kernel


class VariantChange:
    """A node whose rules are written with one variant and then with the other."""

    def __init__(self, network, talk, family, first):
        self.family = family
        self._network = network
        self._talk = talk
        self._first = first
        (self._second,) = set(Variant) - {first}

    def first(self):
        return self._backend(self._first)

    def second(self):
        return self._backend(self._second)

    def former(self):
        return FormerVariant(self.family, self._first)

    def left(self):
        lines = saved(self.family, self._first).splitlines()
        # Without the counters: open connections send again when the machine is busy.
        return [line.partition("] ")[2] or line for line in lines if "KPROXY-" in line]

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
        run("conntrack -F")

    def _backend(self, variant):
        return IptablesBackend(
            family=self.family,
            variant=variant,
            renderer=Renderer(self.family, Options()),
            transactions=Transactions(),
        )


class TestVariants(ChangeContract):
    @pytest.fixture
    def change(self, family, variant, tmp_path, monkeypatch):
        monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
        with Network() as network:
            talk = Conversations(network)
            talk.serve(POD1, POD2)
            with network.node.entered():
                yield VariantChange(network, talk, family, variant)
            talk.close()
