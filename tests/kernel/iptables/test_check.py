"""The host check: each miss comes with its remedy, and looking changes nothing."""

import pytest

from backends.iptables.check import check
from backends.iptables.driver import trial
from backends.iptables.driver.trial import Trial
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from tests.kernel.iptables.conftest import Applied, run, shop

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
    possible = Trial("possible", "nat", "-j RETURN", "nat")
    impossible = Trial("impossible", "nat", "-m no_such_match -j RETURN", "xt_no_such_match")
    refused = trial.refusals(family, variant, [impossible, possible])
    assert list(refused) == [impossible]
    assert "no_such_match" in refused[impossible]


def test_a_missing_default_route_is_told(namespace):
    assert not found(Family.IPV4)["default route"].ok
    run("ip route add default dev lo")
    assert found(Family.IPV4)["default route"].ok


def test_two_variants_in_use_are_told(namespace, family):
    assert found(family)["variant"].ok
    for variant in Variant:
        Applied(family, variant).apply(shop(family))
    told = found(family)["variant"]
    assert not told.ok
    assert "update-alternatives" in told.remedy


def test_a_table_that_iptables_cannot_show_is_told(namespace, family):
    node = Applied(family, Variant.NF_TABLES)
    node.apply(shop(family))
    assert found(family)["table nat"].ok
    name = "ip" if family is Family.IPV4 else "ip6"
    run(f"nft add rule {name} nat PREROUTING fib daddr type local accept")
    findings = found(family, wanted=Variant.NF_TABLES)
    assert not findings["table nat"].ok
    assert findings["table filter"].ok


def test_missing_programs_are_told_with_their_package(namespace, family, monkeypatch, tmp_path):
    monkeypatch.setattr("backends.kernel.xtables.tools._SYSTEM_PATH", "")
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
