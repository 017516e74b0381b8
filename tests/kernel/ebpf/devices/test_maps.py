"""What programs are told of the host is what the kernel itself goes by, a moment after a change."""

import random
import select
import socket
import struct
import subprocess
from ipaddress import IPv6Network, ip_address

import pytest

from backends.ebpf.driver import addresses, device_layout, entries
from backends.ebpf.driver.claims import Claims
from backends.ebpf.driver.device_layout import DeviceFlag, HostFlag, SocketHooks
from backends.ebpf.driver.entries import Entries
from backends.ebpf.driver.host import HostSettings, netns_cookie
from backends.kernel.bpf import programs
from backends.kernel.links import links
from kproxy.core.table import FromInterface, FromInterfacePrefix, Undetected
from kproxy.ports.data_path import BackendError
from tests.support import waiting
from tests.support.ebpf.devices import index, ip
from tests.support.net.namespace import Namespace

pytestmark = pytest.mark.kernel

_MARK_AT, _CONTEXT_BYTES = 8, 192  # struct __sk_buff
_ETHERNET_BYTES = 14


def asked(node, program, address, mark=0):
    """Run a program on an address that lies where a packet would."""
    packed = ip_address(address).packed
    data = bytes(_ETHERNET_BYTES) + packed + bytes(40)
    context = bytearray(_CONTEXT_BYTES)
    struct.pack_into("=I", context, _MARK_AT, mark)
    run = programs.run(node.loaded.programs[program], data, context=bytes(context))
    return run.verdict, run.data[_ETHERNET_BYTES : _ETHERNET_BYTES + len(packed)]


def is_own(node, address):
    return asked(node, "is_own", address)[0] == 1


def masqueraded(node, device, towards):
    """Return the source that programs would take for what leaves by a device."""
    found, address = asked(node, "masquerade", towards, index(device))
    return str(ip_address(address)) if found else None


def told(node, name):
    """Return what the map has of a device: flags, bridge and hardware address."""
    value = node.loaded.maps["devices"].lookup(device_layout.number(index(name)))
    flags, bridge, mac = struct.unpack("=II6s2x", value)
    return DeviceFlag(flags), bridge, mac.hex(":")


def follow(node, devices):
    """Let the agent see what its descriptor tells it of, and no more."""
    assert select.select([devices], [], [], 0)[0], "nothing was told"
    node.settle(devices)
    assert not select.select([devices], [], [], 0)[0]


def test_devices_are_told_as_they_are_and_as_they_change(node):
    ip("link add br0 type bridge", "link add p0 address 02:00:00:00:00:07 type veth peer name p1")
    devices = node.start()
    devices.detect_pods(FromInterface("br0"))
    assert told(node, "lo")[0] == DeviceFlag.ETHERNET | DeviceFlag.LOOPBACK
    assert told(node, "p0") == (DeviceFlag.ETHERNET, 0, "02:00:00:00:00:07")
    assert told(node, "br0")[0] == DeviceFlag.ETHERNET | DeviceFlag.BRIDGE | DeviceFlag.POD

    ip("link set p0 master br0", "link set p0 address 02:00:00:00:00:08")
    follow(node, devices)
    a_pods_port = DeviceFlag.ETHERNET | DeviceFlag.POD
    assert told(node, "p0") == (a_pods_port, index("br0"), "02:00:00:00:00:08")
    ip("link set br0 name other")
    follow(node, devices)
    assert told(node, "p0") == (DeviceFlag.ETHERNET, index("other"), "02:00:00:00:00:08")
    ip("link set other name br0")
    follow(node, devices)
    assert told(node, "p0")[0] == a_pods_port
    ip("link set p0 nomaster")
    follow(node, devices)
    assert told(node, "p0")[:2] == (DeviceFlag.ETHERNET, 0)


def test_a_bridge_that_goes_leaves_its_ports_without_one(node):
    ip("link add br0 type bridge", "link add p0 type veth peer name p1", "link set p0 master br0")
    devices = node.start()
    devices.detect_pods(FromInterfacePrefix("br"))
    assert told(node, "p0")[0] & DeviceFlag.POD
    ip("link del br0")
    follow(node, devices)
    assert told(node, "p0")[:2] == (DeviceFlag.ETHERNET, 0)
    devices.detect_pods(FromInterfacePrefix("p"))
    assert told(node, "p0")[0] & DeviceFlag.POD
    devices.detect_pods(Undetected(""))
    assert not told(node, "p0")[0] & DeviceFlag.POD


def test_own_addresses_are_followed(node):
    devices = node.start()
    assert is_own(node, "127.0.0.1")
    assert is_own(node, "127.9.9.9")
    assert not is_own(node, "192.0.2.1")

    ip("addr add 192.0.2.1/24 dev up0", "addr add 203.0.113.5/32 dev lo")
    follow(node, devices)
    assert is_own(node, "192.0.2.1")
    assert is_own(node, "203.0.113.5")
    assert not is_own(node, "192.0.2.2")
    assert not is_own(node, "192.0.2.255"), "broadcast is nobody's address"
    ip("addr del 192.0.2.1/24 dev up0", "addr del 203.0.113.5/32 dev lo")
    follow(node, devices)
    assert not is_own(node, "192.0.2.1")
    assert not is_own(node, "203.0.113.5")


def test_an_address_at_two_devices_is_own_until_both_are_gone(node):
    ip("link add p0 type veth peer name p1", "addr add 192.0.2.1/24 dev up0")
    ip("addr add 192.0.2.1/32 dev p0")
    devices = node.start()
    ip("link del p0")
    follow(node, devices)
    assert is_own(node, "192.0.2.1")
    ip("link del up0")
    follow(node, devices)
    assert not is_own(node, "192.0.2.1")


def test_an_address_of_a_device_that_goes_down_stays_own(node):
    """As in the kernel, which answers for it by any other device."""
    ip("addr add 192.0.2.1/24 dev up0")
    devices = node.start()
    ip("link set up0 down")
    follow(node, devices)
    assert is_own(node, "192.0.2.1")


def test_local_networks_are_own_and_other_routes_are_not_even_told(node):
    ip("addr add 192.0.2.1/24 dev up0")
    devices = node.start()
    ip("route add 10.1.0.0/16 via 192.0.2.7", "route add local 10.2.0.0/16 dev lo table 77")
    assert not select.select([devices], [], [], 0)[0]

    ip("route add local 10.3.0.0/16 dev lo")
    follow(node, devices)
    assert is_own(node, "10.3.77.1")
    assert not is_own(node, "10.1.0.1")
    assert not is_own(node, "10.2.0.1"), "what a rule delivers here makes no address the host's"
    ip("route del local 10.3.0.0/16 dev lo")
    follow(node, devices)
    assert not is_own(node, "10.3.77.1")


def test_own_addresses_are_claimed_and_those_of_loopback_are_not(node):
    def may_be_ours(address):
        return asked(node, "may_be_ours", address)[0] == 1

    ip("addr add 192.0.2.1/24 dev up0")
    devices = node.start()
    assert may_be_ours("192.0.2.1")
    assert not any(map(may_be_ours, ("127.0.0.1", "127.9.9.9", "192.0.2.3", "10.3.0.1")))
    ip("addr add 192.0.2.3/24 dev up0", "route add local 10.3.0.0/16 dev lo")
    follow(node, devices)
    assert may_be_ours("192.0.2.3")
    assert may_be_ours("10.3.77.1")


def test_an_address_is_claimed_before_it_is_own(node, monkeypatch):
    """Else the node's answers from it leave untranslated for a moment."""
    order = []
    monkeypatch.setattr(Claims, "add", lambda _, found: order.append(("claimed", *found)))
    monkeypatch.setattr(Entries, "put", lambda _, changes: order.append(("own", *changes)))
    ip("addr add 192.0.2.1/24 dev up0")
    node.start()
    address = ip_address("192.0.2.1").packed
    assert [step for step, *found in order if address in found] == ["claimed", "own"]


def test_own_ipv6_addresses_count_once_they_can_be_used(node6):
    devices = node6.start()
    ip("addr add fd00::1/64 dev up0 nodad", "addr add fd00::2/64 dev lo")

    def known():
        node6.settle(devices)
        return is_own(node6, "fd00::1") and is_own(node6, "fd00::2")

    waiting.until(known, within_s=waiting.LONGEST_S, what="the kernel lets addresses be used")
    assert is_own(node6, "::1")
    assert not is_own(node6, "fd00::3")
    ip("link del up0")
    follow(node6, devices)
    assert not is_own(node6, "fd00::1")
    assert is_own(node6, "fd00::2")


def test_more_changes_than_there_is_room_for_end_in_the_truth(node, caplog):
    caplog.set_level("INFO")
    devices = node.start()
    ip(*(f"addr {verb} 10.9.0.{n}/32 dev lo" for _ in range(15) for verb in ("add", "del")
         for n in range(1, 255)))  # fmt: skip
    ip("addr add 192.0.2.1/24 dev up0", "link add p0 type veth peer name p1")
    follow(node, devices)
    assert "too many changes of devices at once" in caplog.text
    assert is_own(node, "192.0.2.1")
    assert not is_own(node, "10.9.0.7")
    assert len(list(node.loaded.maps["devices"].keys())) == len(links())


@pytest.mark.parametrize(
    ("place", "name"), [(entries.Map, "update_many"), (addresses, "interface_addresses")]
)
def test_what_a_refusal_kept_from_the_maps_is_there_after_the_next_look(
    node, monkeypatch, place, name
):
    devices = node.start()
    ip("addr add 192.0.2.1/24 dev up0", "link add p0 type veth peer name p1")
    with monkeypatch.context() as patch:
        patch.setattr(place, name, refused)
        with pytest.raises(BackendError):
            devices.tend(1.0)
    devices.tend(1.0)
    assert is_own(node, "192.0.2.1")
    assert masqueraded(node, "up0", "10.0.0.1") == "192.0.2.1"
    assert told(node, "p0")[0] == DeviceFlag.ETHERNET


def refused(*_):
    raise BackendError("asking", "no", transient=True)


def test_masquerade_of_ipv4_is_that_of_the_kernel(node):
    """Packets leave by next hops in several networks, and the other end tells their source."""
    hops = ("192.0.2.100", "198.51.100.7", "198.51.100.200", "10.9.9.9")
    ip(
        *(f"addr add {each} dev up0" for each in ("192.0.2.1/25", "198.51.100.1/24")),
        *(f"addr add {each} dev up0" for each in ("198.51.100.129/25", "192.0.2.9/25")),
        "addr add 203.0.113.1 peer 10.9.9.9 dev up0",
        *(f"route add 10.{n}.0.0/16 via {hop}" for n, hop in enumerate(hops)),
        *(f"neigh add {hop} lladdr 02:00:00:00:00:09 dev up0" for hop in hops),
    )
    rule = "iptables-nft -t nat -A POSTROUTING -o up0 -j MASQUERADE"
    subprocess.run(rule.split(), check=True)
    node.start()
    sources = []
    with node.outside.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as tap:
        tap.bind(("up1", 0x0800))
        tap.settimeout(waiting.LONGEST_S)
        for n in range(len(hops)):
            send_from(node, "192.0.2.9", f"10.{n}.0.1")
            sources.append(source_of_packet_to(f"10.{n}.0.1", tap))
    assert [masqueraded(node, "up0", hop) for hop in hops] == sources


def send_from(node, source, destination):
    """Send a datagram of the node's that is bound to one of its addresses."""
    with node.inside.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        sock.sendto(b"?", (destination, 9))


def source_of_packet_to(destination, tap):
    while True:
        data = tap.recv(128)
        if data[16:20] == ip_address(destination).packed:
            return str(ip_address(data[12:16]))


def test_masquerade_of_ipv6_is_that_of_the_kernel(node6):
    """Of random addresses and destinations: what a socket gets as source by the same rules."""
    chance = random.Random(5)
    networks = ["2001:db8:1::/48", "2001:db8:2::/64", "fd00:1::/48", "fd00:2::/64", "2002:1::/32"]
    ip("link add p0 type veth peer name p1", "link set p0 up", "link set p1 up")
    for device in ("up0", "p0"):
        own = chance.sample(networks, 3)
        ip(*(f"addr add {inside(each, chance)} dev {device} nodad" for each in own))
    ip("route add ::/0 dev up0 metric 5", "route add ::/0 dev p0 metric 6")
    ip(f"addr change {told_first(node6)} dev up0 preferred_lft 0")
    devices = node6.start()
    node6.settle(devices)

    for device in ("up0", "p0"):
        for _ in range(60):
            towards = inside(chance.choice(networks), chance).split("/")[0]
            assert masqueraded(node6, device, towards) == kernels_choice(device, towards), towards


def inside(network, chance):
    """Return an address of a network, with the length of its prefix."""
    found = IPv6Network(network)
    host = chance.getrandbits(128 - found.prefixlen)
    return f"{found[host]}/{found.prefixlen}"


def told_first(node):
    shown = subprocess.run(
        ["ip", "-6", "-o", "addr", "show", "dev", "up0", "scope", "global"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return shown.split()[3]


def kernels_choice(device, towards):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        sock.connect((towards, 9))
        return sock.getsockname()[0]


def test_a_device_without_an_address_masquerades_with_another_ones(node):
    ip("link add p0 type veth peer name p1", "addr add 192.0.2.1/24 dev up0")
    devices = node.start()
    assert masqueraded(node, "p0", "10.0.0.1") == "192.0.2.1"
    ip("addr add 198.51.100.1/24 dev p0", "addr del 192.0.2.1/24 dev up0")
    follow(node, devices)
    assert masqueraded(node, "p0", "10.0.0.1") == "198.51.100.1"
    assert masqueraded(node, "up0", "10.0.0.1") == "198.51.100.1"
    ip("addr del 198.51.100.1/24 dev p0")
    follow(node, devices)
    assert masqueraded(node, "up0", "10.0.0.1") is None


def test_the_first_address_that_goes_makes_room_for_the_next(node):
    ip("addr add 192.0.2.1/24 dev up0", "addr add 198.51.100.1/24 dev up0")
    devices = node.start()
    assert masqueraded(node, "up0", "10.0.0.1") == "192.0.2.1"
    ip("addr del 192.0.2.1/24 dev up0")
    follow(node, devices)
    assert masqueraded(node, "up0", "10.0.0.1") == "198.51.100.1"


def test_settings_of_the_host_are_written_apart_from_flags(node):
    host = HostSettings(node.loaded.maps["host"])
    host.set(HostFlag.WITHDRAWN, on=True)
    host.write(mark=0x4000, node_ports=(30000, 32767), socket_hooks=SocketHooks.HOST)
    assert host.read().flags == HostFlag.WITHDRAWN
    host.set(HostFlag.HAND_OVER, on=True)
    host.set(HostFlag.WITHDRAWN, on=False)

    found = host.read()
    assert found.flags == HostFlag.HAND_OVER
    assert (found.mark, found.node_ports) == (0x4000, (30000, 32767))
    assert found.socket_hooks is SocketHooks.HOST
    assert found.local_ports == (32768, 60999)
    assert found.netns_cookie == netns_cookie()
    with Namespace("another").entered():
        assert found.netns_cookie != netns_cookie()


def test_the_range_of_local_ports_is_followed(node):
    devices = node.start()
    HostSettings(node.loaded.maps["host"]).write(
        mark=0, node_ports=(30000, 32767), socket_hooks=SocketHooks.ALL
    )
    with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as setting:
        setting.write("40000 50000")
    node.later(devices, 1)
    assert HostSettings(node.loaded.maps["host"]).read().local_ports == (40000, 50000)
