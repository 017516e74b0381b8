"""What depends on the mode is resolved before anything is decided."""

import pytest

from kproxy.config.fields import Mode
from kproxy.config.loading import to_settings
from kproxy.core.settings import LocalhostNodePorts, NodePortKeyword

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
    ("ipvs", True, LISTED, LISTED),
    ("ipvs", False, LISTED, LISTED),
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
