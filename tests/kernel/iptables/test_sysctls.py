"""The node's settings: turned on when needed, put right when others turn them off."""

import pytest

from backends.kernel import sysctl as node_settings
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.core.table import TableChanges
from kproxy.ports.data_path import BackendError
from tests.support.iptables.applied import Applied, run, shop

pytestmark = pytest.mark.kernel

LOCALNET = "sysctl/net.ipv4.conf.all.route_localnet"

FORWARDING = {
    Family.IPV4: "net.ipv4.ip_forward",
    Family.IPV6: "net.ipv6.conf.all.forwarding",
}


def set_sysctl(name: str, value: str) -> None:
    run(f"sysctl -q -w {name}={value}")


@pytest.fixture
def opened(namespace, variant) -> Applied:
    """A node with NodePorts on loopback."""
    node = Applied(Family.IPV4, variant)
    node.apply(shop(Family.IPV4, localhost=True))
    return node


def test_forwarding_is_turned_on(node):
    assert not node_settings.forwards(node.family)
    node.apply(shop(node.family))
    assert node_settings.forwards(node.family)


def test_forwarding_that_others_turn_off_is_noticed_and_repaired(node):
    node.apply(shop(node.family))
    node.observed()
    assert not node.backend.disturbed()
    set_sysctl(FORWARDING[node.family], "0")
    assert node.backend.disturbed()
    assert list(node.apply().put) == [f"sysctl/{FORWARDING[node.family]}"]
    assert node_settings.forwards(node.family)
    assert not node.backend.disturbed()


def test_forwarding_that_others_turn_off_right_after_our_first_write_is_noticed(node):
    node.apply(shop(node.family))
    set_sysctl(FORWARDING[node.family], "0")
    assert node.backend.disturbed()


LIBERAL = "net.netfilter.nf_conntrack_tcp_be_liberal"


def drops_invalid(node: Applied) -> bool:
    return any("INVALID" in line and line.endswith("DROP") for line in node.saved().splitlines())


def test_liberal_connection_tracking_is_followed_while_others_turn_it_on_and_off(node):
    node.apply(shop(node.family))
    assert drops_invalid(node)
    for value in ("1", "0"):
        set_sysctl(LIBERAL, value)
        assert node.backend.disturbed()
        assert node.backend.disturbed(), "as long as the rules do not follow"
        written = node.apply(TableChanges(node.family))
        assert list(written.put) == ["filter/KPROXY-FORWARD"]
        assert not written.drop
        assert drops_invalid(node) is (value == "0")
        assert not node.backend.disturbed()


def test_liberal_connection_tracking_that_was_on_before_is_found(namespace, family, variant):
    set_sysctl(LIBERAL, "1")
    node = Applied(family, variant)
    node.apply(shop(family))
    assert not drops_invalid(node)
    assert not node.backend.disturbed()


def test_connection_tracking_that_is_not_loaded_yet_is_not_liberal(tmp_path):
    setting = tmp_path / "nf_conntrack_tcp_be_liberal"
    assert not node_settings.tracks_liberally(setting)
    for value, liberal in (("0\n", False), ("1\n", True)):
        setting.write_text(value)
        assert node_settings.tracks_liberally(setting) is liberal


def test_forwarding_that_was_on_is_nothing_to_write(node):
    set_sysctl(FORWARDING[node.family], "1")
    assert f"sysctl/{FORWARDING[node.family]}" not in node.apply(shop(node.family)).put


def test_a_change_of_the_table_names_no_setting_that_stays(node):
    node.apply(shop(node.family))
    patch = node.backend.render(TableChanges(node.family))
    assert not any(key.startswith("sysctl/") for key in patch), "a repair of it would go unsaid"


def test_localhost_node_ports_open_loopback_only_behind_the_guard(opened):
    assert node_settings.routes_localnet()
    assert "KPROXY-LOCALNET" in opened.iptables("-S INPUT")

    opened.apply(shop(Family.IPV4))
    assert "KPROXY-LOCALNET" not in opened.saved()
    assert not node_settings.routes_localnet()


def test_loopback_that_others_close_is_noticed_and_opened_again(opened):
    opened.observed()
    set_sysctl("net.ipv4.conf.all.route_localnet", "0")
    assert opened.backend.disturbed()
    assert list(opened.apply().put) == [LOCALNET]
    assert node_settings.routes_localnet()
    assert not opened.backend.disturbed()


def test_a_restart_closes_what_an_earlier_run_opened(opened):
    Applied(Family.IPV4, opened.variant).apply(shop(Family.IPV4))
    assert not node_settings.routes_localnet()


def test_what_we_opened_is_closed_even_if_others_took_the_guard_away(opened):
    opened.iptables("-D INPUT -j KPROXY-LOCALNET -m comment --comment "
                    f"kp:{opened.want['jump/filter/INPUT/KPROXY-LOCALNET'].decode()}")  # fmt: skip
    opened.iptables("-F KPROXY-LOCALNET")
    opened.iptables("-X KPROXY-LOCALNET")
    opened.apply(shop(Family.IPV4))
    assert not node_settings.routes_localnet()


def test_loopback_that_others_opened_for_themselves_stays_open(namespace, variant):
    set_sysctl("net.ipv4.conf.all.route_localnet", "1")
    node = Applied(Family.IPV4, variant)
    node.apply(shop(Family.IPV4))
    assert LOCALNET not in node.observed()
    assert node_settings.routes_localnet()


def test_loopback_stays_closed_if_the_guard_is_refused(namespace, variant):
    node = Applied(Family.IPV4, variant)
    node.render(shop(Family.IPV4, localhost=True))
    genuine = node.renderer.chain
    node.renderer.chain = lambda key: (
        ("--no-such-option",) if key == "filter/KPROXY-LOCALNET" else genuine(key)
    )
    with pytest.raises(BackendError):
        node.apply()
    assert not node_settings.routes_localnet()


def test_a_router_advertised_route_survives_forwarding(namespace):
    run("ip link add uplink type veth peer name cable")
    node = Applied(Family.IPV6, Variant.NF_TABLES)
    for _ in range(2):
        set_sysctl("net.ipv6.conf.all.forwarding", "0")
        set_sysctl("net.ipv6.conf.uplink.accept_ra", "1")
        node.apply(shop(Family.IPV6))
        path = "/proc/sys/net/ipv6/conf"
        assert run(f"cat {path}/uplink/accept_ra") == "2\n"
        assert run(f"cat {path}/default/accept_ra") == "1\n"
