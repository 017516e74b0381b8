"""The one rule of iptables: where a FORWARD chain may refuse what we translated, only there."""

from __future__ import annotations

import pytest

from backends.ebpf.driver import forwarding
from backends.ebpf.driver.forwarding import ForwardingRule
from backends.ebpf.driver.surroundings import Surroundings
from backends.kernel.xtables import legacy, tools
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from tests.support.commands import output_of
from tests.support.net.namespace import Namespace

pytestmark = pytest.mark.kernel

MARK = 0x4000
RULE = '-A FORWARD -m comment --comment "kproxy ebpf 0x4000" -m mark --mark 0x4000 -j ACCEPT'


class Tables:
    """The tables of one variant and family in a namespace of their own."""

    def __init__(self, family: Family, variant: Variant) -> None:
        self.family = family
        stem = "iptables" if family is Family.IPV4 else "ip6tables"
        self._program = f"{stem}-{variant.value}"

    def __call__(self, rest: str) -> None:
        output_of(self._program, *rest.split(), timeout_s=30)

    def forward(self) -> list[str]:
        """Return the rules of FORWARD."""
        printed = output_of(f"{self._program}-save", "-t", "filter", timeout_s=30)
        return [line for line in printed.splitlines() if line.startswith("-A FORWARD")]


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request):
    return request.param


@pytest.fixture(params=Variant, ids=lambda variant: variant.value)
def tables(request, family, tmp_path, monkeypatch):
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    namespace = Namespace("node")
    with namespace.entered():
        yield Tables(family, request.param)
    namespace.close()


def test_where_nobody_filters_no_table_is_made(tables):
    rule = ForwardingRule(tables.family, MARK)
    assert rule.ensure() == 0
    assert "filter" not in legacy.tables(tables.family)
    assert forwarding.remove(tables.family) == 0


def test_it_stands_behind_a_policy_engine_and_before_what_ends_the_chain(tables):
    tables("-N CNI-POLICY")
    tables("-A CNI-POLICY -p tcp --dport 9 -j DROP")
    tables("-A FORWARD -j CNI-POLICY")
    tables("-A FORWARD -j REJECT")
    rule = ForwardingRule(tables.family, MARK)
    assert rule.ensure() == 1
    assert tables.forward()[1] == RULE
    assert rule.ensure() == 0, "once is enough"
    assert len(tables.forward()) == 3


def test_it_moves_behind_an_engine_that_comes_while_it_is_put_there(tables, monkeypatch):
    tables("-P FORWARD DROP")
    write = tools.restore

    def come_first(*what):
        monkeypatch.setattr(tools, "restore", write)
        tables("-N CNI-POLICY")
        tables("-A CNI-POLICY -p tcp --dport 9 -j DROP")
        tables("-I FORWARD 1 -j CNI-POLICY")
        write(*what)

    monkeypatch.setattr(tools, "restore", come_first)
    assert ForwardingRule(tables.family, MARK).ensure() == 1
    assert tables.forward() == ["-A FORWARD -j CNI-POLICY", RULE]


@pytest.mark.parametrize("chain", ["KUBE-FORWARD", "KPROXY-FORWARD"])
def test_it_stands_before_a_proxy_that_drops_what_is_invalid(tables, chain):
    tables(f"-N {chain}")
    tables(f"-A {chain} -m conntrack --ctstate INVALID -j DROP")
    tables("-A FORWARD -p tcp --dport 9 -j DROP")
    tables(f"-A FORWARD -j {chain}")
    rule = ForwardingRule(tables.family, MARK)
    assert rule.ensure() == 1
    assert tables.forward()[1] == RULE

    tables(f"-D FORWARD -j {chain}")
    tables(f"-I FORWARD -j {chain}")
    assert rule.missing()
    assert rule.ensure() == 1
    assert tables.forward()[0] == RULE
    assert len(tables.forward()) == 3
    assert rule.ensure() == 0


def test_what_others_do_to_it_is_noticed_and_put_right(tables):
    tables("-P FORWARD DROP")
    rule = ForwardingRule(tables.family, MARK)
    assert rule.missing()
    rule.ensure()
    rule.ensure()
    assert not rule.missing()
    tables("-F FORWARD")
    assert rule.missing()
    assert rule.ensure() == 1
    assert tables.forward() == [RULE]


def test_a_rule_for_another_mark_is_replaced(tables):
    tables("-P FORWARD DROP")
    ForwardingRule(tables.family, 0x8000).ensure()
    ForwardingRule(tables.family, MARK).ensure()
    assert tables.forward() == [RULE]


def test_the_log_says_that_it_was_put_back(tables, caplog):
    caplog.set_level("INFO")
    tables("-P FORWARD DROP")
    around = Surroundings(tables.family, MARK)
    around.ensure()
    around.tend()
    assert caplog.messages == []
    tables("-F FORWARD")
    around.tend()
    told = "others changed FORWARD or turned forwarding off: put 1 right"
    assert caplog.messages == [f"{tables.family.value}: {told}"]
    assert tables.forward() == [RULE]


def test_removal_leaves_what_others_have(tables):
    tables("-A FORWARD -j ACCEPT")
    before = tables.forward()
    ForwardingRule(tables.family, MARK).ensure()
    assert forwarding.remove(tables.family) == 1
    assert tables.forward() == before
    assert forwarding.remove(tables.family) == 0
