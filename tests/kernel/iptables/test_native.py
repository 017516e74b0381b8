"""Native nf_tables content of others, in iptables' tables and beside it, does not disturb."""

import pytest

from backends.iptables import check as checks
from backends.iptables.cleanup import clean_up
from backends.iptables.driver.ours import OURS
from backends.kernel import nft
from backends.kernel.xtables import variant as variants
from backends.kernel.xtables.tools import Variant
from backends.kube_proxy.takeover import remove_kube_proxy
from kproxy.core.addresses import Family
from tests.support import kube_proxy
from tests.support.iptables.applied import Applied, run, shop

pytestmark = pytest.mark.kernel

BASES = """table FAMILY filter {
chain FORWARD {
type filter hook forward priority 0; policy accept;
}
chain INPUT {
type filter hook input priority 0; policy accept;
}
}
table FAMILY nat {
chain PREROUTING {
type nat hook prerouting priority -100; policy accept;
}
chain POSTROUTING {
type nat hook postrouting priority 100; policy accept;
}
}
"""
# FAMILY is ip or ip6, ADDRESS one of its addresses, TYPE the nft type of them.
CONTENTS = {
    "a mark of a VPN": """
add rule FAMILY filter FORWARD meta mark set meta mark and 0xff00ffff xor 0x00040000
add rule FAMILY nat PREROUTING meta mark set meta mark and 0xff00ffff xor 0x00040000
add rule FAMILY nat POSTROUTING meta mark & 0x00ff0000 == 0x00040000 masquerade
""",
    "sets and maps": """
add set FAMILY filter known { type TYPE; flags timeout; }
add map FAMILY nat targets { type inet_service : TYPE; elements = { 9 : ADDRESS }; }
add rule FAMILY filter FORWARD FAMILY saddr @known drop
add rule FAMILY filter FORWARD update @known { FAMILY saddr timeout 5s }
add rule FAMILY nat PREROUTING dnat to udp dport map @targets
""",
    "verdict maps": """
add chain FAMILY filter theirs
add map FAMILY filter decisions { type inet_service : verdict; elements = { 9 : jump theirs }; }
add rule FAMILY filter INPUT udp dport vmap @decisions
add rule FAMILY filter FORWARD ct state vmap { invalid : drop, untracked : goto theirs }
add rule FAMILY filter theirs FAMILY saddr . udp dport vmap { ADDRESS . 9 : drop }
""",
    "stateful objects": """
add counter FAMILY filter seen
add quota FAMILY filter much { over 500 mbytes }
add limit FAMILY filter slow { rate 5/second }
add rule FAMILY filter FORWARD udp dport 9 counter name seen quota name much drop
add rule FAMILY filter FORWARD udp dport 9 limit name slow log prefix "theirs" drop
""",
    "chains of its own with a hook": """
add chain FAMILY nat prerouting { type nat hook prerouting priority -101; policy accept; }
add chain FAMILY filter forward { type filter hook forward priority -1; policy accept; }
add rule FAMILY nat prerouting udp dport 9 redirect to :10
add rule FAMILY filter forward udp dport 9 reject
""",
    "an anonymous chain": """
add rule FAMILY filter FORWARD udp dport 9 jump { meta mark 5 accept; drop; }
""",
    "other tables of iptables": """
add table FAMILY mangle
add chain FAMILY mangle FORWARD { type filter hook forward priority -150; policy accept; }
add rule FAMILY mangle FORWARD udp dport 9 numgen random mod 3 == 1 accept
add table FAMILY raw
add chain FAMILY raw PREROUTING { type filter hook prerouting priority -300; policy accept; }
add rule FAMILY raw PREROUTING fib daddr type local notrack
""",
    "tables of other families": """
add table inet filter
add chain inet filter FORWARD { type filter hook forward priority 1; policy accept; }
add rule inet filter FORWARD meta mark set meta mark xor 4
add table arp filter
add chain arp filter INPUT { type filter hook input priority 0; }
add table bridge nat
add chain bridge nat PREROUTING { type filter hook prerouting priority 0; }
add table netdev filter
add chain netdev filter in { type filter hook ingress device "lo" priority 0; }
""",
    "a table that sleeps": """
add table FAMILY theirs { flags dormant; }
add chain FAMILY theirs KPROXY-NOT-OURS
add rule FAMILY theirs KPROXY-NOT-OURS drop
""",
}


def load(family: Family, text: str) -> None:
    v4 = family is Family.IPV4
    names = {
        "FAMILY": nft.FAMILY_NAME[family],
        "ADDRESS": "192.0.2.1" if v4 else "2001:db8::1",
        "TYPE": "ipv4_addr" if v4 else "ipv6_addr",
    }
    for name, here in names.items():
        text = text.replace(name, here)
    run("nft -f -", text)


@pytest.fixture
def before(namespace, family, content) -> str:
    """What others wrote, as nft prints it."""
    load(family, BASES)
    load(family, CONTENTS[content])
    return run("nft list ruleset")


@pytest.mark.parametrize("content", CONTENTS)
def test_our_rules_come_stay_and_go_beside_it(before, family):
    node = Applied(family, Variant.NF_TABLES)
    node.apply(shop(family))
    assert node.observed() == node.want
    assert not Applied(family, Variant.NF_TABLES).apply(shop(family))
    assert variants.choose(family, OURS) is Variant.NF_TABLES
    assert all(each.ok for each in checks.check(family) if each.subject.startswith("table "))
    assert clean_up(family) > 20
    assert "KPROXY" not in run("nft list ruleset").replace("KPROXY-NOT-OURS", "")
    assert added(before, run("nft list ruleset")) == set(EMPTY)


@pytest.mark.parametrize("content", CONTENTS)
def test_kube_proxys_rules_go_and_kubelets_hint_is_found_beside_it(before, family):
    node = Applied(family, Variant.NF_TABLES)
    node.restore(kube_proxy.restore_input(kube_proxy.KUBELET))
    kubelets = run("nft list ruleset")
    node.restore(kube_proxy.iptables_mode(family))
    Applied(family, Variant.LEGACY).restore("*filter\n-A INPUT -p udp -j ACCEPT\nCOMMIT\n")
    assert variants.choose(family, OURS) is Variant.NF_TABLES
    assert set(variants.in_use(family)) == set(Variant)
    assert remove_kube_proxy(family) == 20 + 12
    assert added(kubelets, run("nft list ruleset")) <= set(EMPTY)
    assert remove_kube_proxy(family) == 0


EMPTY = (
    "chain OUTPUT {",
    "type filter hook output priority filter; policy accept;",
    "type nat hook output priority -100; policy accept;",
)
"""What iptables makes for its own rules, and leaves."""


def added(before: str, after: str) -> set[str]:
    """Return the lines that are there in `after` alone; require that none is missing."""
    lines, now = ([line.strip() for line in text.splitlines()] for text in (before, after))
    assert [line for line in lines if line not in now] == []
    return set(now) - set(lines)


def test_native_rules_do_not_tell_which_iptables_others_use(namespace, family):
    load(family, BASES)
    load(family, "add rule FAMILY filter FORWARD udp dport 9 accept\n" * 5)
    Applied(family, Variant.LEGACY).restore("*filter\n-A INPUT -p udp -j ACCEPT\nCOMMIT\n")
    assert variants.choose(family, OURS) is Variant.LEGACY
    assert variants.in_use(family) == [Variant.LEGACY]


def test_a_chain_that_an_element_of_a_map_leads_to_stays(namespace, family):
    node = Applied(family, Variant.NF_TABLES)
    node.apply(shop(family))
    load(
        family,
        "add map FAMILY nat m { type inet_service : verdict; elements = { 9 : jump KPROXY-SERVICES"
        " }; }\n",
    )
    clean_up(family)
    left = [line for line in run("nft list ruleset").splitlines() if "KPROXY" in line]
    assert [line.strip() for line in left] == ["elements = { 9 : jump KPROXY-SERVICES }",
                                               "chain KPROXY-SERVICES {"]  # fmt: skip
    assert clean_up(family) == 0


def test_a_chain_of_kube_proxys_that_native_rules_lead_to_stays_with_what_it_leads_to(
    namespace, family
):
    node = Applied(family, Variant.NF_TABLES)
    node.restore(kube_proxy.iptables_mode(family))
    load(
        family,
        "add chain FAMILY nat mine\n"
        "add rule FAMILY nat mine udp dport vmap { 9 : goto KUBE-SVC-AAAAAAAAAAAAAAA7 }\n",
    )
    remove_kube_proxy(family)
    kept = [line.split()[1] for line in run("nft list chains").splitlines() if "KUBE" in line]
    assert sorted(kept) == [
        "KUBE-MARK-MASQ",
        "KUBE-SEP-AAAAAAAAAAAAAAA5",
        "KUBE-SVC-AAAAAAAAAAAAAAA7",
    ]
