"""A foreign write is noticed, and a write of the other family is none."""

import itertools
import threading

import pytest

from backends.iptables.driver.backend import IptablesBackend
from backends.iptables.render.renderer import Renderer
from backends.iptables.render.rules import Options
from backends.kernel.transactions import Transactions
from backends.kernel.xtables import tools
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError
from kproxy.run.loop.reconcile import Reconciler
from tests.support.iptables.applied import changes, iptables, run, service_port, shop

pytestmark = pytest.mark.kernel

V4, V6 = Family
_DEADLINE_S = 60


class Side:
    """One family of a process that serves both."""

    def __init__(self, family, variant, transactions):
        self.family = family
        self.variant = variant
        self.backend = IptablesBackend(
            family=family,
            variant=variant,
            renderer=Renderer(family, Options()),
            transactions=transactions,
        )
        self.reconciler = Reconciler(self.backend, lambda: ())
        self._endpoints = itertools.cycle([(2,), (2, 3), (), (4, 5, 6)])

    def change(self):
        """Write one change, as the loop does; return whether everything had to be read."""
        port = service_port(self.family, 0, endpoints=next(self._endpoints))
        if self.reconciler.disturbed():
            self.reconciler.forget()
        return self.reconciler.apply(changes(self.family, port)).observed

    def iptables(self, rest):
        run(f"{iptables(self.family, self.variant)} {rest}")


@pytest.fixture
def sides(namespace, variant):
    """Both families, with rules in the kernel."""
    transactions = Transactions()
    made = {family: Side(family, variant, transactions) for family in Family}
    for family, side in made.items():
        side.reconciler.apply(shop(family))
    return made


def test_a_change_of_both_families_reads_nothing_in_either(sides):
    for _ in range(3):
        for side in sides.values():
            assert not side.change()
        for side in sides.values():
            assert not side.backend.disturbed()


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
@pytest.mark.parametrize("looked", [True, False], ids=["looked at since", "just written"])
def test_a_foreign_write_is_noticed_whatever_the_other_family_wrote(sides, family, looked):
    (other,) = set(Family) - {family}
    sides[family].change()
    if looked:
        assert not sides[family].backend.disturbed()
    sides[other].change()
    sides[family].iptables("-t nat -F KPROXY-SERVICES")
    sides[other].change()
    assert sides[family].backend.disturbed()
    assert sides[family].reconciler.audit().repaired
    for side in sides.values():
        side.reconciler.audit()
        assert not side.backend.disturbed()


def test_a_foreign_write_elsewhere_disturbs_nobody_who_has_looked_since(namespace):
    transactions = Transactions()
    sides = [Side(family, tools.Variant.NF_TABLES, transactions) for family in Family]
    for side in sides:
        side.reconciler.apply(shop(side.family))
        side.change()
    for side in sides:
        assert not side.backend.disturbed()
    run("nft add table inet theirs")
    run("ip6tables-nft -N THEIRS")
    for side in sides:
        assert not side.backend.disturbed()
        assert not side.change()
    for side in sides:
        assert not side.backend.disturbed()


def test_a_write_of_the_other_family_that_is_refused_is_no_disturbance(sides):
    sides[V4].change()
    assert not sides[V4].backend.disturbed()

    def refused(family, variant, lines):
        *good, commit = lines
        genuine(family, variant, [*good, "--no-such-option", commit])

    genuine = tools.restore
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tools, "restore", refused)
        with pytest.raises(BackendError):
            sides[V6].change()
    assert sides[V6].backend.disturbed()
    assert not sides[V4].backend.disturbed()
    assert not sides[V4].change()


def test_both_families_that_write_at_the_same_time_do_not_disturb_each_other(sides):
    read = dict.fromkeys(Family, 0)
    begin = threading.Barrier(2)

    def busy(side):
        begin.wait(_DEADLINE_S)
        for _ in range(30):
            read[side.family] += side.change() + side.backend.disturbed()

    threads = [threading.Thread(target=busy, args=[side]) for side in sides.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_DEADLINE_S)
    assert read == {V4: 0, V6: 0}
    for side in sides.values():
        assert not side.reconciler.audit().written
        side.iptables("-t nat -F KPROXY-SERVICES")
        assert side.backend.disturbed()


def test_a_foreign_write_while_the_other_family_writes_is_noticed_at_its_end(sides, monkeypatch):
    v4, v6 = sides.values()
    v4.change()
    written, go_on = threading.Event(), threading.Event()

    def slow(family, variant, lines):
        genuine(family, variant, lines)
        written.set()
        assert go_on.wait(_DEADLINE_S)

    genuine = tools.restore
    with monkeypatch.context() as patch:
        patch.setattr(tools, "restore", slow)
        thread = threading.Thread(target=v6.change)
        thread.start()
        assert written.wait(_DEADLINE_S)
        during = v4.backend.disturbed()
        v4.iptables("-t nat -F KPROXY-SERVICES")
        go_on.set()
        thread.join(_DEADLINE_S)
    assert not during, "it may be the other family's"
    assert v4.backend.disturbed()
