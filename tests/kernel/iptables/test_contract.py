"""The iptables data path keeps the contract of all data paths, on a real kernel."""

import contextlib
import re
import tempfile
from pathlib import Path

import pytest

from backends.iptables.driver.backend import IptablesBackend
from backends.iptables.render.renderer import Renderer
from backends.iptables.render.rules import Options
from backends.kernel.transactions import Transactions
from backends.kernel.xtables import tools
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from tests.support.contract import BackendContract, PairContract
from tests.support.extensions import extensions_without
from tests.support.iptables.applied import iptables, run, saved
from tests.support.tables import service_port, some_tables

pytestmark = pytest.mark.kernel

THEIRS = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
}
_COUNTERS = re.compile(r"\[\d+:\d+\]")


class IptablesRig:
    """A namespace in which others have rules in every built-in chain, a chain and an ipset."""

    def __init__(self, family, variant):
        self.family = family
        self._variant = variant
        for table, chains in THEIRS.items():
            self._iptables(f"-t {table} -N THEIRS")
            for chain in chains:
                self._iptables(f"-t {table} -A {chain} -p tcp -m comment --comment x -j THEIRS")
        run("ipset -exist create theirs hash:net")

    def both(self):
        transactions = Transactions()
        return {
            family: IptablesBackend(
                family=family,
                variant=self._variant,
                renderer=Renderer(family, Options(counts=True)),
                transactions=transactions,
            )
            for family in Family
        }

    def backend(self):
        return self.both()[self.family]

    def foreign(self):
        # Without counters: the kernel itself sends over IPv6 what devices that are up are to hear.
        printed = [_COUNTERS.sub("", saved(family, self._variant)) for family in Family]
        rules = [line for text in printed for line in text.splitlines()]
        lines = [line for line in rules if "kproxy" not in line.lower()]
        sets = [name for name in run("ipset list -n").split() if not name.startswith("kproxy-")]
        return tuple(lines), tuple(sets)

    def meddle(self):
        self._iptables("-t nat -F KPROXY-SERVICES")
        self._iptables("-t nat -A PREROUTING -j KPROXY-SERVICES")
        self._iptables("-D INPUT 2")
        self._iptables("-N KPROXY-NOBODYS")

    def refusals(self):
        yield self._with_a_set_in_the_way()
        for transaction in (1, 2, 3):
            yield self._with_a_bad_line_in(transaction)

    def without_room(self):
        return service_port(self.family, 60, [7, 8], affinity_s=60), self._without_the_match()

    @contextlib.contextmanager
    def _without_the_match(self):
        """The programs refuse every rule that names an ipset, and so any table with one."""
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            extensions_without(Path(folder), {"libxt_set.so", "libxt_SET.so"})
            patch.setenv("XTABLES_LIBDIR", folder)
            yield

    @contextlib.contextmanager
    def _with_a_set_in_the_way(self):
        """The first step of a commit makes ipsets; one of another type has the name of one."""
        rendered = self.backend().render(some_tables(self.family)[5].everything())
        name = min(key for key in rendered if key.startswith("set/")).partition("/")[2]
        run(f"ipset create {name} bitmap:port range 1-2")
        yield self.backend()
        run(f"ipset destroy {name}")

    @contextlib.contextmanager
    def _with_a_bad_line_in(self, transaction):
        """The kernel's tools refuse a transaction (the first, the second, …) of each commit."""
        count = 0

        def restore(family, variant, lines):
            nonlocal count
            count += 1
            bad = ["--no-such-option"] if count == transaction else []
            *good, commit = lines
            genuine(family, variant, [*good, *bad, commit])

        genuine = tools.restore
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tools, "restore", restore)
            yield self.backend()

    def _iptables(self, rest):
        run(f"{iptables(self.family, self._variant)} {rest}")


class TestIptables(BackendContract):
    @pytest.fixture
    def rig(self, namespace, family, variant):
        return IptablesRig(family, variant)


class TestBothVariants(PairContract):
    @pytest.fixture
    def pair(self, namespace, family):
        return [IptablesRig(family, variant) for variant in Variant]
