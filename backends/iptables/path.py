"""The iptables data path, as every data path is seen."""

from __future__ import annotations

import contextlib
import logging

from backends.iptables import check, cleanup
from backends.iptables.driver import parts, prepare
from backends.iptables.driver.backend import IptablesBackend
from backends.iptables.driver.ours import OURS
from backends.iptables.options import IptablesOptions
from backends.iptables.preview import preview
from backends.iptables.render.renderer import Renderer
from backends.iptables.render.rules import Feature, Options
from backends.iptables.withdrawal import FormerVariant
from backends.kernel.transactions import Transactions
from backends.kernel.xtables import variant
from backends.kernel.xtables.tools import Variant
from backends.kube_proxy.takeover import TakeOver
from kproxy.core.addresses import Family
from kproxy.core.table import ForwardingTable, NodeRules
from kproxy.ports.data_path import Backend, Finding

log = logging.getLogger(__name__)


class IptablesPath:
    """Both variants of iptables, IPv4 and IPv6."""

    def __init__(self, options: IptablesOptions) -> None:
        self._options = options
        self._take_over = TakeOver() if options.take_over else None
        self._chosen: dict[Family, Variant] = {}
        self._transactions = Transactions()

    def backend(self, family: Family) -> Backend:
        """Return the data path of a family, in the variant that the node uses."""
        if self._take_over:
            self._take_over.expect(family)
        return self._backend(family)

    def prepare(self, family: Family, rules: NodeRules) -> int:
        """Set what a process with CAP_NET_ADMIN alone could not; return how much was missing."""
        with contextlib.closing(self._backend(family)) as backend:
            return prepare.prepare(backend, rules)

    def _backend(self, family: Family) -> IptablesBackend:
        chosen = variant.choose(family, OURS, wanted=self._options.variant)
        log.info("%s: writing rules with iptables %s", family.value, chosen.value)
        self._chosen[family] = chosen
        lacking = parts.lacking(family, chosen)
        for feature, reason in lacking.items():
            level = logging.INFO if feature in parts.MINOR else logging.WARNING
            log.log(level, "%s: %s, as %s", family.value, parts.CONSEQUENCES[feature], reason)
        options = Options(
            masquerade_bit=self._options.masquerade_bit,
            counts=Feature.COUNTERS not in lacking,
            without=lacking,
        )
        return IptablesBackend(
            family=family,
            variant=chosen,
            renderer=Renderer(family, options),
            transactions=self._transactions,
        )

    def in_force(self, family: Family) -> None:
        """Remove what kube-proxy left, if asked."""
        removed = self._take_over.in_force(family) if self._take_over else 0
        if removed:
            log.info("%s: removed %d objects that kube-proxy left", family.value, removed)

    def former(self, family: Family) -> list[FormerVariant]:
        """Return the variants that this process does not write in."""
        unused = (each for each in Variant if each is not self._chosen.get(family))
        return [FormerVariant(family, each) for each in unused]

    def preview(self, table: ForwardingTable) -> str:
        """Return the input of iptables-restore that makes a table true."""
        return preview(table, Options(masquerade_bit=self._options.masquerade_bit, counts=True))

    def check(self, family: Family) -> list[Finding]:
        """Return what this host offers to iptables."""
        return check.check(family, wanted=self._options.variant)

    def clean_up(self, family: Family) -> int:
        """Remove everything of ours, in both variants; return how many objects there were."""
        return cleanup.clean_up(family)
