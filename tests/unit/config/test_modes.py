"""What depends on the mode is resolved before anything is decided."""

import pytest

from kproxy.config.fields import Mode
from kproxy.config.loading import to_settings
from kproxy.core.settings import LocalhostNodePorts, NodePortKeyword
from kproxy.proxy.assembly import loop_settings

COVERED, LISTED, NEVER = (
    LocalhostNodePorts.COVERED,
    LocalhostNodePorts.LISTED,
    LocalhostNodePorts.NEVER,
)
LOCALHOST_OF_MODES = [
    # (mode, the switch, IPv4, IPv6); the kernel has no route_localnet for IPv6
    ("iptables", True, COVERED, NEVER),
    ("iptables", False, NEVER, NEVER),
    ("ebpf", True, COVERED, LISTED),
    ("ebpf", False, NEVER, LISTED),
    ("ipvs", True, NEVER, NEVER),
    ("ipvs", False, NEVER, NEVER),
    ("nftables", True, LISTED, LISTED),
    ("nftables", False, LISTED, LISTED),
]


@pytest.mark.parametrize(("mode", "on", "ipv4", "ipv6"), LOCALHOST_OF_MODES)
def test_each_mode_says_when_node_ports_answer_on_loopback(load, mode, on, ipv4, ipv6):
    fields = {"mode": mode, "iptables": {"localhostNodePorts": on}}
    settings = to_settings(load(fields).configuration, "n")
    assert (settings.localhost_ipv4, settings.localhost_ipv6) == (ipv4, ipv6)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("unset", [{}, {"nodePortAddresses": []}, {"nodePortAddresses": None}])
def test_node_ports_hold_everywhere_by_default_and_in_nftables_on_the_primary_address(
    load, mode, unset
):
    settings = to_settings(load({"mode": mode.value, **unset}).configuration, "n")
    primary = mode is Mode.NFTABLES
    default = NodePortKeyword.PRIMARY if primary else NodePortKeyword.ALL
    assert settings.node_port_addresses == (default,)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("iptables", True), ("ipvs", True), ("ebpf", True), ("nftables", False)],
)
def test_masquerade_all_comes_from_the_section_of_the_mode(load, mode, expected):
    loaded = load({"mode": mode, "iptables": {"masqueradeAll": True}})
    assert to_settings(loaded.configuration, "n").masquerade_all is expected
    loaded = load({"mode": mode, "nftables": {"masqueradeAll": True}})
    assert to_settings(loaded.configuration, "n").masquerade_all is not expected


SAID = "NodePorts answer on no loopback address in mode ipvs, so without effect: "


@pytest.mark.parametrize(
    ("addresses", "named"),
    [
        (["localhost", "primary", "127.0.2.0/28"], ["localhost", "127.0.2.0/28"]),
        (["127.0.0.0/8", "::1/128", "192.0.2.0/24"], ["127.0.0.0/8", "::1/128"]),
        (["::ffff:127.0.0.1/128"], ["::ffff:127.0.0.1/128"]),
        (["all"], []),
        (["0.0.0.0/0", "2001:db8::/32"], []),
    ],
)
def test_in_ipvs_it_is_said_that_no_node_port_answers_on_loopback(load, addresses, named):
    said = load({"mode": "ipvs", "nodePortAddresses": addresses}).without_effect
    assert [line.partition(SAID)[2].split(", ") for line in said] == ([named] if named else [])
    assert load({"nodePortAddresses": addresses}).without_effect == ()


def test_in_ipvs_every_field_of_its_section_counts_and_of_iptables_masquerade_all(load):
    ipvs = {
        "syncPeriod": "7s",
        "minSyncPeriod": "3s",
        "scheduler": "wrr",
        "excludeCIDRs": ["192.0.2.0/24"],
        "strictARP": True,
        "tcpTimeout": "1s",
        "tcpFinTimeout": "1s",
        "udpTimeout": "1s",
    }
    iptables = {
        "syncPeriod": "9s",
        "minSyncPeriod": "2s",
        "masqueradeBit": 15,
        "masqueradeAll": True,
        "localhostNodePorts": False,
    }
    loaded = load({"mode": "ipvs", "ipvs": ipvs, "iptables": iptables})
    settings = loop_settings(loaded.configuration)
    assert (settings.min_interval_s, settings.sync_period_s) == (3, 7)
    (line,) = loaded.without_effect
    assert line.partition("without effect in kproxy: ")[2].split(", ") == [
        "iptables.localhostNodePorts",
        "iptables.masqueradeBit",
        "iptables.minSyncPeriod",
        "iptables.syncPeriod",
    ]
