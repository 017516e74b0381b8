"""The ipvs data path, as every data path is seen."""

from __future__ import annotations

import logging

from backends.ipvs import check, cleanup, prepare
from backends.ipvs.driver.backend import IpvsBackend
from backends.ipvs.driver.link import SharedLink
from backends.ipvs.driver.opening import choose_variant, open_backend
from backends.ipvs.kube_proxys_rest import KubeProxysForwarding, KubeProxysLink
from backends.ipvs.options import IpvsOptions
from backends.ipvs.preview import preview
from backends.ipvs.withdrawal import FormerRules, FormerServers
from backends.kernel.transactions import Transactions
from backends.kernel.xtables.tools import Variant
from backends.kube_proxy.takeover import TakeOver
from kproxy.core.addresses import Family
from kproxy.core.table import ForwardingTable, NodeRules
from kproxy.ports.data_path import Backend, Finding, Former

log = logging.getLogger(__name__)


class IpvsPath:
    """Virtual servers of the kernel, IPv4 and IPv6, and rules in one variant of iptables."""

    def __init__(self, options: IpvsOptions) -> None:
        self._options = options
        self._take_over = TakeOver(ipvs_stays=True) if options.take_over else None
        self._chosen: dict[Family, Variant] = {}
        self._backends: dict[Family, IpvsBackend] = {}
        self._transactions = Transactions()
        self._link = SharedLink()

    def backend(self, family: Family) -> Backend:
        """Return the data path of a family, its rules in the variant that the node uses."""
        chosen = choose_variant(family, self._options)
        backend = open_backend(
            family,
            self._options,
            chosen=chosen,
            link=self._link,
            transactions=self._transactions,
        )
        self._chosen[family] = chosen
        self._backends[family] = backend
        return backend

    def prepare(self, family: Family, rules: NodeRules) -> int:
        """Set what a process without privileges could not; return how much was missing."""
        return prepare.prepare(family, self._options)

    def in_force(self, family: Family) -> None:
        """Remove what kube-proxy left and nobody needs, if asked: its virtual servers first.

        Its rules and sets tell which are its.
        """
        if self._take_over is None:
            return
        self._backends[family].take_over()
        removed = self._take_over.in_force(family)
        if removed:
            log.info("%s: removed %d objects that kube-proxy left", family.value, removed)

    def former(self, family: Family) -> list[Former]:
        """Return what this process does not write to: all, or rules in the other variant.

        What open connections need of kube-proxy, whose virtual servers this data path goes on with,
        is among it.
        """
        chosen = self._chosen.get(family)
        if chosen is None:
            return [FormerServers(family, self._link)]
        former: list[Former] = [FormerRules(family, each) for each in Variant if each is not chosen]
        if self._take_over:
            former += [KubeProxysForwarding(family), KubeProxysLink(family)]
        return former

    def preview(self, table: ForwardingTable) -> str:
        """Return the commands that make a table true."""
        return preview(table, self._options)

    def check(self, family: Family) -> list[Finding]:
        """Return what this host offers to ipvs."""
        return check.check(family, self._options)

    def clean_up(self, family: Family) -> int:
        """Remove everything of ours; return how many objects there were."""
        return cleanup.clean_up(family, self._link)
