"""Clean-up removes what is ours, in both variants, and nothing else."""

import pytest

from backends.iptables.cleanup import clean_up
from backends.kernel import sysctl as node_settings
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from tests.support.iptables.applied import Applied, iptables, run, saved, shop

pytestmark = pytest.mark.kernel

FOREIGN = """*filter
:MINE - [0:0]
[3:180] -A INPUT -p tcp -m comment --comment "mentions KPROXY-FILTER" -j MINE
[5:300] -A MINE -p udp -j ACCEPT
COMMIT
*nat
:MINE - [0:0]
[7:420] -A PREROUTING -p tcp -j MINE
[9:540] -A MINE -p tcp -m comment --comment "x -j KPROXY-SERVICES" -j RETURN
COMMIT
"""


def load(family: Family, variant: Variant, text: str) -> None:
    run(f"{iptables(family, variant, 'restore')} --noflush --counters", text)


@pytest.mark.parametrize("foreign_first", [True, False], ids=["foreign first", "ours first"])
def test_foreign_rules_stay_with_their_counters(node, foreign_first):
    if foreign_first:
        load(node.family, node.variant, FOREIGN)
        before = node.saved()
        node.apply(shop(node.family))
    else:
        load(node.family, node.variant, FOREIGN)
        before = node.saved()
        node.iptables("-F")
        node.iptables("-t nat -F")
        node.apply(shop(node.family))
        load(node.family, node.variant, FOREIGN)
    run("ipset create others hash:ip")
    assert clean_up(node.family) > 20
    assert node.saved() == before
    assert run("ipset list -n") == "others\n"
    assert clean_up(node.family) == 0
    assert node.saved() == before


def test_both_variants_are_cleaned(namespace, family):
    for variant in Variant:
        Applied(family, variant).apply(shop(family))
    assert clean_up(family) > 40
    for variant in Variant:
        assert "KPROXY" not in saved(family, variant)


def test_no_legacy_table_is_created(namespace, family):
    Applied(family, Variant.NF_TABLES).apply(shop(family))
    clean_up(family)
    assert run("cat /proc/self/net/ip_tables_names /proc/self/net/ip6_tables_names") == ""


def test_the_other_family_stays(namespace, variant):
    nodes = {family: Applied(family, variant) for family in Family}
    for family, node in nodes.items():
        node.apply(shop(family))
    clean_up(Family.IPV6)
    assert nodes[Family.IPV4].observed() == nodes[Family.IPV4].want
    assert set(nodes[Family.IPV6].observed()) == {"sysctl/net.ipv6.conf.all.forwarding"}


def test_a_chain_that_a_foreign_chain_jumps_to_stays_empty(node):
    node.apply(shop(node.family))
    load(node.family, node.variant, "*nat\n:MINE - [0:0]\n-A MINE -j KPROXY-SERVICES\nCOMMIT\n")
    clean_up(node.family)
    ours = [line for line in node.saved().splitlines() if "KPROXY" in line]
    assert ours == [":KPROXY-SERVICES - [0:0]", "[0:0] -A MINE -j KPROXY-SERVICES"]
    assert clean_up(node.family) == 0


def test_loopback_is_closed_again(namespace, variant):
    Applied(Family.IPV4, variant).apply(shop(Family.IPV4, localhost=True))
    assert node_settings.routes_localnet()
    clean_up(Family.IPV4)
    assert not node_settings.routes_localnet()


def test_loopback_stays_open_where_kubelet_guards_it(namespace, variant):
    Applied(Family.IPV4, variant).apply(shop(Family.IPV4, localhost=True))
    load(
        Family.IPV4, variant, "*filter\n:KUBE-FIREWALL - [0:0]\n-A INPUT -j KUBE-FIREWALL\nCOMMIT\n"
    )
    clean_up(Family.IPV4)
    assert node_settings.routes_localnet()


def test_loopback_that_was_never_ours_is_left_alone(namespace, variant):
    node_settings.route_localnet("1")
    Applied(Family.IPV4, variant).apply(shop(Family.IPV4))
    clean_up(Family.IPV4)
    assert node_settings.routes_localnet()
