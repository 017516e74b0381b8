"""Taking over removes what kube-proxy left, whatever its mode, and nothing of anybody else."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from backends.ipvs.kube_proxys_rest import KubeProxysForwarding
from backends.kernel.virtual_servers import Server
from backends.kernel.xtables.tools import Variant
from backends.kube_proxy.ipvs_leftovers import made_by_kube_proxy
from backends.kube_proxy.takeover import FORWARDING, TakeOver, remove_kube_proxy
from kproxy.core.addresses import Family
from tests.support import kube_proxy
from tests.support.iptables.applied import Applied, iptables, run, saved, shop

pytestmark = pytest.mark.kernel


def load(family: Family, variant: Variant, text: str) -> None:
    run(f"{iptables(family, variant, 'restore')} --noflush", text)


@pytest.fixture
def before(namespace, family, variant) -> str:
    """Kubelet's and foreign rules, as they must stay."""
    load(family, variant, kube_proxy.restore_input(kube_proxy.KUBELET))
    load(family, variant, kube_proxy.restore_input(kube_proxy.FOREIGN))
    return saved(family, variant)


def test_the_iptables_mode_leaves_nothing_and_others_lose_nothing(before, family, variant):
    load(family, variant, kube_proxy.iptables_mode(family))
    assert saved(family, variant) != before
    assert remove_kube_proxy(family) == 20 + 12
    assert saved(family, variant) == before
    assert remove_kube_proxy(family) == 0


def test_the_ipvs_mode_leaves_nothing_and_others_lose_nothing(before, family, variant):
    sets, rules = kube_proxy.ipvs_mode(family)
    run("ipset create mine hash:ip")
    run("ipset restore", sets)
    load(family, variant, rules)
    assert remove_kube_proxy(family) > 20
    assert saved(family, variant) == before
    assert run("ipset list -n") == "mine\n"
    assert remove_kube_proxy(family) == 0


def test_what_lets_open_connections_through_stays_as_long_as_it_is_needed(before, family, variant):
    load(family, variant, kube_proxy.iptables_mode(family))
    assert TakeOver(ipvs_stays=True).in_force(family) == 19 + 11
    left = set(saved(family, variant).splitlines()) - set(before.splitlines())
    assert len([line for line in left if FORWARDING in line]) == len(left) == 1 + 1 + 3
    rest = KubeProxysForwarding(family)
    assert rest.withdraw(), "no connection is open"
    assert rest.clean_up() == 1 + 1
    assert saved(family, variant) == before


VIPS = {Family.IPV4: "172.30.0.1/32", Family.IPV6: "fd00:30::1/128"}


@pytest.fixture
def link(namespace):
    """kube-proxy's link with a clusterIP of each family; the name counts, not the type."""
    run("ip link add kube-ipvs0 type veth peer name other-end")
    for vip in VIPS.values():
        run(f"ip addr add {vip} dev kube-ipvs0")


def addresses() -> set[str]:
    """Return what stands on the link, which is down and so has no link-local address."""
    return {line.split()[3] for line in run("ip -o addr show dev kube-ipvs0").splitlines()}


def test_a_family_keeps_its_addresses_until_it_is_in_force_and_the_link_goes_with_the_last(
    link, family
):
    other = Family.IPV6 if family is Family.IPV4 else Family.IPV4
    taking = TakeOver()
    for each in Family:
        taking.expect(each)
    assert taking.in_force(family) == 1
    assert addresses() == {VIPS[other]}
    assert taking.in_force(family) == 0, "it may be asked again"
    assert addresses() == {VIPS[other]}
    assert taking.in_force(other) == 1 + 1
    assert "kube-ipvs0" not in run("ip link")


def test_the_link_goes_with_the_only_family(link, family):
    taking = TakeOver()
    taking.expect(family)
    assert taking.in_force(family) == 1 + 1
    assert "kube-ipvs0" not in run("ip link")


def test_families_that_come_into_force_at_once_remove_the_link_once(link):
    taking = TakeOver()
    for each in Family:
        taking.expect(each)
    together = threading.Barrier(len(Family))

    def in_force(family: Family) -> int:
        together.wait()
        return taking.in_force(family)

    with ThreadPoolExecutor(max_workers=len(Family)) as threads:
        assert sum(threads.map(in_force, Family)) == len(Family) + 1
    assert "kube-ipvs0" not in run("ip link")


def test_the_nftables_mode_leaves_nothing_and_the_other_family_loses_nothing(before, family):
    names = {Family.IPV4: "ip", Family.IPV6: "ip6"}
    for name in names.values():
        run(f"nft add table {name} kube-proxy")
        run(f"nft add chain {name} kube-proxy services")
        run(f"nft add table {name} mine")
    assert remove_kube_proxy(family) == 1
    tables = run("nft list tables")
    for other, name in names.items():
        assert (f"table {name} kube-proxy\n" in tables) == (other is not family)
        assert f"table {name} mine\n" in tables


def test_both_variants_are_searched(namespace, family):
    for variant in Variant:
        load(family, variant, kube_proxy.iptables_mode(family))
    remove_kube_proxy(family)
    for variant in Variant:
        assert "KUBE-" not in saved(family, variant)


def test_a_chain_that_a_foreign_rule_names_stays_with_what_it_leads_to(namespace, family, variant):
    load(family, variant, kube_proxy.iptables_mode(family))
    mine = "*nat\n:MINE - [0:0]\n-A MINE -p tcp -j KUBE-SVC-AAAAAAAAAAAAAAA7\nCOMMIT\n"
    load(family, variant, mine)
    remove_kube_proxy(family)
    left = [line for line in saved(family, variant).splitlines() if line.startswith(":KUBE")]
    assert left == [
        ":KUBE-MARK-MASQ - [0:0]",
        ":KUBE-SEP-AAAAAAAAAAAAAAA5 - [0:0]",
        ":KUBE-SVC-AAAAAAAAAAAAAAA7 - [0:0]",
    ]
    assert "-A MINE -p tcp -j KUBE-SVC-AAAAAAAAAAAAAAA7" in saved(family, variant)


@pytest.mark.parametrize(
    ("why", "rule"),
    [
        ("no comment of kube-proxy's", "-A INPUT -j KUBE-FORWARD"),
        (
            "a condition that kube-proxy has not",
            '-A INPUT -p tcp -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
        ),
    ],
)
def test_an_administrators_jump_is_not_taken_for_kube_proxys(namespace, family, variant, why, rule):
    load(family, variant, kube_proxy.iptables_mode(family))
    load(family, variant, f"*filter\n{rule}\nCOMMIT\n")
    remove_kube_proxy(family)
    left = saved(family, variant)
    assert rule in left, why
    assert ":KUBE-FORWARD" in left
    assert "-A KUBE-FORWARD" in left


def test_our_own_rules_stay(node):
    load(node.family, node.variant, kube_proxy.iptables_mode(node.family))
    node.apply(shop(node.family))
    remove_kube_proxy(node.family)
    assert node.observed() == node.want
    assert not Applied(node.family, node.variant).apply(shop(node.family))


def test_a_node_without_kube_proxy_is_left_alone(before, family, variant):
    assert remove_kube_proxy(family) == 0
    assert saved(family, variant) == before


def server(protocol: int, address: str, port: int) -> Server:
    return Server(Family.IPV4, protocol, socket.inet_aton(address), port)


def test_virtual_servers_are_kube_proxys_by_address_node_port_or_place(link):
    run("ipset create KUBE-NODE-PORT-TCP bitmap:port range 0-65535")
    run("ipset add KUBE-NODE-PORT-TCP 30080")
    on_link = server(socket.IPPROTO_TCP, "172.30.0.1", 443)
    node_port = server(socket.IPPROTO_TCP, "192.0.2.1", 30080)
    external = server(socket.IPPROTO_TCP, "192.0.2.1", 80)
    balanced = server(socket.IPPROTO_UDP, "192.0.2.2", 53)
    for name, element in (
        ("EXTERNAL-IP-LOCAL", "192.0.2.1,80"),
        ("LOAD-BALANCER", "192.0.2.2,udp:53"),
    ):
        run(f"ipset create KUBE-{name} hash:ip,port")
        run(f"ipset add KUBE-{name} {element}")
    foreign = server(socket.IPPROTO_UDP, "192.0.2.1", 30080)
    beside = server(socket.IPPROTO_UDP, "192.0.2.1", 80)
    marked = on_link._replace(mark=1)
    made = made_by_kube_proxy(Family.IPV4)
    assert list(map(made, [on_link, node_port, external, balanced])) == [True] * 4
    assert list(map(made, [foreign, beside, marked])) == [False] * 3
    assert not made_by_kube_proxy(Family.IPV6)(on_link)
