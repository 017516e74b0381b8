"""What a variant leaves for open connections when it takes no new ones, and what goes then."""

import contextlib

import pytest

from backends.iptables.driver.ours import OURS
from backends.iptables.withdrawal import FormerVariant
from backends.kernel import sysctl as node_settings
from backends.kernel.xtables import rulesets
from backends.kernel.xtables.tools import Variant
from backends.kernel.xtables.variant import choose
from kproxy.core.addresses import Family
from tests.kernel.iptables.test_cleanup import FOREIGN, load
from tests.support.iptables.applied import Applied, saved, shop

pytestmark = pytest.mark.kernel


@pytest.fixture
def other(variant):
    (other,) = set(Variant) - {variant}
    return other


def chains(family, variant):
    """Return the names of our chains."""
    lines = saved(family, variant).splitlines()
    return {line.split()[0][1:] for line in lines if line.startswith(":KPROXY-")}


def test_chains_for_new_connections_go_and_those_for_open_ones_stay(node, other):
    node.apply(shop(node.family))
    before = chains(node.family, node.variant)
    FormerVariant(node.family, node.variant).withdraw()
    left = chains(node.family, node.variant)
    assert left == {"KPROXY-POSTROUTING", "KPROXY-MASQUERADE", "KPROXY-FORWARD"}
    assert left < before
    assert FormerVariant(node.family, node.variant).clean_up() > len(left)
    assert "KPROXY" not in node.saved()


def test_foreign_rules_stay_with_their_counters(node):
    load(node.family, node.variant, FOREIGN)
    before = node.saved()
    node.apply(shop(node.family))
    former = FormerVariant(node.family, node.variant)
    former.withdraw()
    former.clean_up()
    assert node.saved() == before


def test_a_chain_that_a_foreign_rule_names_stays_empty(node):
    node.apply(shop(node.family))
    node.iptables("-t nat -N MINE")
    node.iptables("-t nat -A MINE -j KPROXY-SERVICES")
    former = FormerVariant(node.family, node.variant)
    former.withdraw()
    former.clean_up()
    assert chains(node.family, node.variant) == {"KPROXY-SERVICES"}
    assert "-A KPROXY" not in node.saved()


def test_loopback_stays_routed_behind_its_guard_until_the_end(namespace, variant, other):
    Applied(Family.IPV4, variant).apply(shop(Family.IPV4, localhost=True))
    Applied(Family.IPV4, other).apply(shop(Family.IPV4, localhost=False))
    former = FormerVariant(Family.IPV4, variant)
    former.withdraw()
    assert node_settings.routes_localnet()
    assert "KPROXY-LOCALNET" in chains(Family.IPV4, variant)
    former.clean_up()
    assert not node_settings.routes_localnet()


def test_loopback_stays_routed_where_the_rules_in_use_want_it(namespace, variant, other):
    for each in (variant, other):
        Applied(Family.IPV4, each).apply(shop(Family.IPV4, localhost=True))
    former = FormerVariant(Family.IPV4, variant)
    former.withdraw()
    former.clean_up()
    assert node_settings.routes_localnet()


def test_a_start_that_chooses_by_itself_stays_with_the_variant_in_use(node, other):
    node.apply(shop(node.family))
    Applied(node.family, other).apply(shop(node.family))
    FormerVariant(node.family, node.variant).withdraw()
    assert choose(node.family, OURS) is other


def test_asking_makes_no_table(namespace, family, variant):
    former = FormerVariant(family, variant)
    assert former.withdraw()
    assert former.clean_up() == 0
    assert saved(family, variant) == ""


@pytest.mark.parametrize("written", range(5))
def test_what_was_cut_short_after_any_write_is_finished_by_another_start(
    node, monkeypatch, written
):
    node.apply(shop(node.family))
    remove, left = rulesets.remove, iter(range(written))

    def killed(*args, **rest):
        if next(left, None) is None:
            raise KeyboardInterrupt
        remove(*args, **rest)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(rulesets, "remove", killed)
        former = FormerVariant(node.family, node.variant)
        former.withdraw()
        former.clean_up()
    again = FormerVariant(node.family, node.variant)
    again.withdraw()
    again.clean_up()
    assert "KPROXY" not in node.saved()
