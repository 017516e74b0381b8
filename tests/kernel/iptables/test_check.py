"""The host check: each miss comes with its remedy, and looking changes nothing."""

import pytest

from backends.iptables.check import check
from backends.iptables.driver.parts import make_trial_set
from backends.kernel import node
from backends.kernel.xtables import trial
from backends.kernel.xtables.parts import Part
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError
from tests.support.iptables.applied import Applied, run, shop

pytestmark = pytest.mark.kernel


def found(family: Family, **options) -> dict:
    return {finding.subject: finding for finding in check(family, **options)}


def test_this_kernel_can_do_every_rule_of_ours(namespace, family, variant):
    findings = found(family, wanted=variant)
    usable = [f for subject, f in findings.items() if subject.startswith(f"{variant.value} ")]
    assert len(usable) > 10
    assert [finding for finding in usable if not finding.ok] == []


def test_a_miss_has_a_remedy_and_a_hit_has_none(namespace, family):
    for finding in check(family):
        assert finding.ok == (finding.remedy == "")
        assert finding.detail


def test_looking_changes_nothing(namespace, family, variant):
    check(family, wanted=variant)
    assert run("nft list ruleset") == ""
    assert run("ipset list -n") == ""
    assert run("cat /proc/self/net/ip_tables_names /proc/self/net/ip6_tables_names") == ""


def test_a_rule_that_the_host_cannot_do_is_told_with_the_reason(namespace, family, variant):
    possible = Part("possible", (), "nat", "-j RETURN", "nat")
    impossible = Part("impossible", (), "nat", "-m no_such_match -j RETURN", "xt_no_such_match")
    refused = trial.refusals(family, variant, [impossible, possible], make_trial_set)
    assert list(refused) == [impossible]
    assert "no_such_match" in refused[impossible]


def test_a_missing_default_route_is_told(namespace, family):
    assert "default route" in found(family)
    ip = "ip" if family is Family.IPV4 else "ip -6"
    for not_one in ("0.0.0.0/1" if family is Family.IPV4 else "::/1", "default table 100"):
        assert not node.default_route(family).ok
        run(f"{ip} route add {not_one} dev lo")
    assert not node.default_route(family).ok
    run(f"{ip} route add blackhole default metric 1")
    assert not node.default_route(family).ok
    run(f"{ip} route add default dev lo metric 2")
    assert node.default_route(family).ok


def test_two_variants_in_use_are_told(namespace, family):
    assert found(family)["variant"].ok
    for variant in Variant:
        Applied(family, variant).apply(shop(family))
    told = found(family)["variant"]
    assert not told.ok
    assert "update-alternatives" in told.remedy


def test_rules_that_iptables_cannot_show_are_no_miss(namespace, family):
    node = Applied(family, Variant.NF_TABLES)
    node.apply(shop(family))
    understood = found(family)["table nat"].detail
    name = "ip" if family is Family.IPV4 else "ip6"
    run(f"nft add rule {name} nat PREROUTING fib daddr type local accept")
    run(f"nft add rule {name} filter FORWARD meta mark set meta mark and 0xff00ffff xor 0x40000")
    findings = found(family, wanted=Variant.NF_TABLES)
    assert all(finding.ok for finding in findings.values() if finding.subject.startswith("table"))
    assert findings["table nat"].detail == findings["table filter"].detail != understood


def test_a_chain_under_the_name_of_iptables_own_is_told(namespace, family):
    name = "ip" if family is Family.IPV4 else "ip6"
    text = f"add table {name} filter\nadd chain {name} filter FORWARD"
    run("nft -f -", f"{text} {{ type filter hook forward priority 10; }}\n")
    told = found(family, wanted=Variant.NF_TABLES)["table filter"]
    assert told.blocking
    assert not told.ok
    assert f"FORWARD in the table {name} filter" in told.detail
    with pytest.raises(BackendError):
        Applied(family, Variant.NF_TABLES).apply(shop(family))


def test_missing_programs_are_told_with_their_package(namespace, family, monkeypatch, tmp_path):
    monkeypatch.setattr("backends.kernel.xtables.tools.SYSTEM_PATH", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = found(family)
    for variant in Variant:
        told = findings[f"iptables {variant.value}"]
        assert not told.ok
        assert "Debian package iptables" in told.remedy


def test_forwarding_that_is_off_is_no_miss_where_it_can_be_turned_on(namespace, family):
    told = next(f for subject, f in found(family).items() if subject.startswith("net."))
    assert told.ok
    assert "off" in told.detail
