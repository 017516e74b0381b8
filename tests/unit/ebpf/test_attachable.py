"""Which devices get programs, in which order, and what programs are told of them."""

import pytest

from backends.ebpf.driver import attachable, device_layout
from backends.ebpf.driver.device_layout import DeviceFlag
from backends.kernel.links import Hardware, Link, LinkFlag
from kproxy.core.table import FromInterface, FromInterfacePrefix, Undetected

MAC = bytes.fromhex("0200deadbeef")
CAN, INFINIBAND, NETLINK = 280, 32, 824


def link(name="eth0", device=2, **changes):
    usual = Link(
        device=device,
        name=name,
        hardware=Hardware.ETHERNET,
        flags=LinkFlag.UP,
        mac=MAC,
        master=0,
        kind="",
        port_kind="",
        remote=b"",
    )
    return usual._replace(**changes)


GRE4, GRE6 = {"hardware": Hardware.GRE, "kind": "gre"}, {"hardware": Hardware.GRE6}
SUITS = {
    "hardware": link(),
    "loopback": link("lo", 1, hardware=Hardware.LOOPBACK, flags=LinkFlag.UP | LinkFlag.LOOPBACK),
    "a VLAN": link("eth0.100", kind="vlan"),
    "a bond": link("bond0", kind="bond"),
    "a team": link("team0", kind="team"),
    "a bridge": link("cbr0", kind="bridge"),
    "a port of a bridge": link("veth1", kind="veth", master=9, port_kind="bridge"),
    "a port of Open vSwitch": link("veth1", kind="veth", master=9, port_kind="openvswitch"),
    "a member of a VRF": link("eth1", master=9, port_kind="vrf"),
    "a pod's veth": link("cali1", kind="veth"),
    "netkit": link("lxc1", kind="netkit"),
    "macvlan": link("mv0", kind="macvlan"),
    "a dummy": link("dummy0", kind="dummy"),
    "VXLAN": link("flannel.1", kind="vxlan"),
    "Geneve": link("gnv0", kind="geneve"),
    "ipip": link("tunl0", hardware=Hardware.TUNNEL, kind="ipip"),
    "ip6tnl": link("ip6tnl0", hardware=Hardware.TUNNEL6, kind="ip6tnl"),
    "sit": link("sit1", hardware=Hardware.SIT, kind="sit"),
    "GRE to a peer": link("gre1", remote=bytes((192, 0, 2, 1)), **GRE4),
    "GRE to a peer over IPv6": link("gre1", remote=b"\xfd" + bytes(15), **GRE6),
    "WireGuard": link("wg0", hardware=Hardware.NONE, kind="wireguard"),
    "tun": link("tun0", hardware=Hardware.NONE, kind="tun"),
    "tap": link("tap0", kind="tun"),
    "xfrm": link("ipsec0", hardware=Hardware.NONE, kind="xfrm"),
    "PPP": link("ppp0", hardware=Hardware.PPP),
}
SUITS_NOT = {
    "a member of a bond": link(flags=LinkFlag.UP | LinkFlag.MEMBER, port_kind="bond", master=9),
    "a virtual function below its master": link(flags=LinkFlag.UP | LinkFlag.MEMBER, master=9),
    "a port of a team": link(port_kind="team", master=9),
    "ifb": link("ifb0", kind="ifb"),
    "a VRF": link("vrf0", kind="vrf"),
    "a copier": link("nlmon0", hardware=NETLINK, kind="nlmon"),
    "CAN": link("can0", hardware=CAN),
    "InfiniBand": link("ib0", hardware=INFINIBAND),
    "GRE to any peer": link("gre0", remote=bytes(4), **GRE4),
    "GRE to any peer, which it does not say": link("gre0", **GRE4),
    "GRE to a group": link("gre1", remote=bytes((239, 0, 0, 1)), **GRE4),
    "GRE to a group over IPv6": link("gre1", remote=b"\xff\x02" + bytes(14), **GRE6),
}


@pytest.mark.parametrize("found", SUITS.values(), ids=SUITS.keys())
def test_what_can_carry_service_traffic_gets_programs(found):
    assert attachable.suits(found)
    assert attachable.is_due(found)


@pytest.mark.parametrize("found", SUITS_NOT.values(), ids=SUITS_NOT.keys())
def test_what_programs_cannot_read_or_would_see_twice_gets_none(found):
    assert not attachable.suits(found)


def test_a_device_that_is_down_waits_until_it_is_up_but_a_pods_does_not():
    assert not attachable.is_due(link("tunl0", kind="ipip", flags=0))
    assert attachable.is_due(link("cali1", kind="veth", flags=0))


def test_loopback_and_uplinks_come_first_and_pods_last():
    pod, bridge = link("veth1", 2, kind="veth"), link("cbr0", 3, kind="bridge")
    uplink, addressed = link("eth0", 4), link("veth0", 5, kind="veth")
    lo = SUITS["loopback"]
    ranks = {
        each.name: attachable.rank(each, addressed=each is addressed)
        for each in (pod, bridge, uplink, addressed, lo)
    }
    order = sorted(ranks, key=ranks.__getitem__)

    assert order == ["lo", "eth0", "veth0", "cbr0", "veth1"]
    first = [name for name in order if ranks[name] <= attachable.LAST_UPLINK]
    assert first == ["lo", "eth0", "veth0"]
    assert max(ranks.values()) < attachable.GONE


BRIDGE = link("cbr0", 9, kind="bridge")
PORT = link("veth1", 10, kind="veth", master=9, port_kind="bridge")


@pytest.mark.parametrize(
    ("why", "found", "local_pods", "is_pods"),
    [
        ("nothing tells pods", BRIDGE, Undetected(""), False),
        ("the bridge itself", BRIDGE, FromInterface("cbr0"), True),
        ("what comes in by a port has the bridge for input", PORT, FromInterface("cbr0"), True),
        ("and not the port", PORT, FromInterface("veth1"), False),
        ("another bridge", PORT, FromInterface("cbr"), False),
        ("a prefix", link("cali12", kind="veth"), FromInterfacePrefix("cali"), True),
        ("a prefix of the bridge", PORT, FromInterfacePrefix("cb"), True),
        ("of no port", PORT, FromInterfacePrefix("veth"), False),
        ("the whole name is a prefix", BRIDGE, FromInterfacePrefix("cbr0"), True),
        ("a member of something else", link(master=9), FromInterface("eth0"), True),
    ],
)
def test_pods_are_recognised_by_the_device_that_rules_would_name(why, found, local_pods, is_pods):
    entry = attachable.entry(found, {9: BRIDGE, 10: PORT}, local_pods)
    flags = DeviceFlag(int.from_bytes(entry[:4], "little"))
    assert bool(flags & DeviceFlag.POD) is is_pods, why


@pytest.mark.parametrize(
    ("found", "flags", "bridge", "mac"),
    [
        (SUITS["hardware"], DeviceFlag.ETHERNET, 0, MAC),
        (SUITS["loopback"], DeviceFlag.ETHERNET | DeviceFlag.LOOPBACK, 0, MAC),
        (BRIDGE, DeviceFlag.ETHERNET | DeviceFlag.BRIDGE, 0, MAC),
        (PORT, DeviceFlag.ETHERNET, 9, MAC),
        (SUITS["ipip"]._replace(mac=bytes((192, 0, 2, 1))), DeviceFlag(0), 0, b""),
        (SUITS["WireGuard"]._replace(mac=b""), DeviceFlag(0), 0, b""),
    ],
)
def test_programs_are_told_what_a_packet_begins_with_and_of_what_it_is_a_port(
    found, flags, bridge, mac
):
    entry = attachable.entry(found, {9: BRIDGE}, Undetected(""))
    assert entry == device_layout.device(flags, bridge, mac)
