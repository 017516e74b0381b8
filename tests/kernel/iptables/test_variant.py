"""Which variant is used, by what is on the node."""

import pytest

from backends.iptables.driver.ours import OURS
from backends.kernel.xtables import variant as variants
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from tests.support.iptables.applied import Applied, iptables, run, shop

pytestmark = pytest.mark.kernel

OTHER = {Variant.LEGACY: Variant.NF_TABLES, Variant.NF_TABLES: Variant.LEGACY}


def rule(family: Family, variant: Variant, rest: str) -> None:
    run(f"{iptables(family, variant)} {rest}")


def test_the_option_wins(namespace, family, variant):
    Applied(family, OTHER[variant]).apply(shop(family))
    assert variants.choose(family, OURS, wanted=variant) is variant


def test_our_chains_win_over_kubelets(namespace, family, variant):
    Applied(family, variant).apply(shop(family))
    rule(family, OTHER[variant], "-t mangle -N KUBE-IPTABLES-HINT")
    assert variants.choose(family, OURS) is variant


@pytest.mark.parametrize("hint", ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"])
def test_kubelets_hint_wins_over_the_number_of_rules(namespace, family, variant, hint):
    rule(family, variant, f"-t mangle -N {hint}")
    rule(family, OTHER[variant], "-A INPUT -p tcp -j ACCEPT")
    assert variants.choose(family, OURS) is variant


def test_the_variant_with_more_rules_is_what_others_use(namespace, family, variant):
    rule(family, variant, "-A INPUT -p tcp -j ACCEPT")
    rule(family, variant, "-A INPUT -p udp -j ACCEPT")
    rule(family, OTHER[variant], "-A INPUT -p tcp -j ACCEPT")
    assert variants.choose(family, OURS) is variant
    assert set(variants.in_use(family)) == set(Variant)


def test_a_family_without_rules_follows_the_other_one(namespace, variant):
    rule(Family.IPV4, variant, "-t mangle -N KUBE-IPTABLES-HINT")
    assert variants.choose(Family.IPV6, OURS) is variant


def test_looking_creates_no_legacy_table(namespace, family):
    variants.choose(family, OURS)
    assert run("cat /proc/self/net/ip_tables_names /proc/self/net/ip6_tables_names") == ""


def test_an_empty_node_gets_what_its_iptables_is(namespace, family):
    printed = run(f"{'iptables' if family is Family.IPV4 else 'ip6tables'} -V")
    expected = Variant.LEGACY if "legacy" in printed else Variant.NF_TABLES
    assert variants.choose(family, OURS) is expected
