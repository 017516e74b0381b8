"""Programs at every device that can carry service traffic, as devices come, change and go."""

import os
import subprocess
from contextlib import suppress

import pytest

from backends.ebpf.driver.device_layout import DeviceFlag, number
from backends.ebpf.driver.sides import Side
from backends.kernel import traffic_control
from backends.kernel.links import links
from backends.kernel.traffic_control import Parent
from tests.support.ebpf.devices import (
    FRAME,
    PACKET,
    TUN_PACKET,
    index,
    ip,
    namespace_path,
    transmit,
    tunnel,
)

pytestmark = pytest.mark.kernel

IN, OUT = Side.INGRESS, Side.EGRESS


def test_an_uplink_and_loopback_are_attached_at_once(either):
    devices = either.start()
    ip("link add pod0 type veth peer name pod1")
    devices.attach(either.programs())

    assert either.seen("up0", IN, either.come_in) == 1 or not devices.attached()
    assert either.seen("lo", OUT, lambda: transmit("lo", FRAME)) == 1
    assert either.seen("lo", IN, lambda: transmit("lo", FRAME)) == 1
    either.settle(devices)
    assert devices.attached()
    assert either.seen("up0", IN, either.come_in) == 1
    assert either.seen("up0", OUT, either.leave) == 1


def test_every_kind_of_device_runs_our_programs(either):
    devices = either.attached()
    ip(
        "addr add 192.0.2.1/24 dev up0",
        "link add br0 type bridge",
        "link add port0 type veth peer name port1",
        "link set port0 master br0",
        "link add vx0 type vxlan id 7 dstport 4789 local 192.0.2.1 remote 192.0.2.2 dev up0",
        "link add mv0 link up0 type macvlan mode bridge",
        "link add dots.100 type veth peer name dots.101",
        *(f"link set {name} up" for name in ("br0", "port0", "port1", "vx0", "mv0")),
        *(f"link set dots.{number} up" for number in (100, 101)),
    )
    with either.outside.entered():
        ip(
            "addr add 192.0.2.2/24 dev up1",
            "link add vx0 type vxlan id 7 dstport 4789 local 192.0.2.2 remote 192.0.2.1 dev up1",
            "link set vx0 up",
        )
    with tunnel("tun0", tap=False) as tun, tunnel("tap0", tap=True) as tap:
        ip("link set tun0 up", "link set tap0 up")
        either.settle(devices)

        for name in ("br0", "port0", "vx0", "mv0", "dots.100", "tap0"):
            assert either.seen(name, OUT, lambda name=name: transmit(name, FRAME)), name
        assert either.seen("tun0", OUT, lambda: transmit("tun0", PACKET))
        either.meets("tun0", IN, lambda: os.write(tun, TUN_PACKET))
        either.meets("tap0", IN, lambda: os.write(tap, FRAME))
        either.meets("dots.100", IN, lambda: transmit("dots.101", FRAME))
        either.meets("port0", IN, lambda: transmit("port1", FRAME))
        either.meets("br0", IN, lambda: transmit("port1", FRAME))
        either.meets("mv0", IN, either.come_in)
        either.meets("vx0", IN, lambda: from_outside(either, "vx0"))


def from_outside(node, device):
    with node.outside.entered():
        transmit(device, FRAME)


def test_a_device_that_is_down_waits_until_it_comes_up(either):
    ip("link add br0 type bridge")
    devices = either.attached()
    assert not traffic_control.filters(index("br0"), Parent.EGRESS)
    assert f"{index('br0')}-egress" not in either.pins()

    ip("link set br0 up")
    either.settle(devices)
    assert either.seen("br0", OUT, lambda: transmit("br0", FRAME)) == 1


def test_a_renamed_device_keeps_its_programs(either):
    devices = either.attached()
    for before, after in (("up0", "eth0.1"), ("eth0.1", "up0")):
        ip(f"link set {before} down", f"link set {before} name {after}", f"link set {after} up")
        either.settle(devices)
        either.meets(after, IN, either.come_in)


def test_a_device_that_moves_away_leaves_nothing_and_is_ours_again_when_it_is_back(either):
    devices = either.attached()
    ip("link add pod0 type veth peer name pod1", "link set pod0 up", "link set pod1 up")
    either.settle(devices)
    number = index("pod0")
    either.send_away("pod0")
    either.settle(devices)

    assert not any(name.startswith(f"{number}-") for name in either.pins())
    assert not (either.qdiscs / str(number)).exists()
    either.take_back("pod0")
    ip("link set pod0 up")
    either.settle(devices)
    either.meets("pod0", IN, lambda: transmit("pod1", FRAME))


def test_a_new_device_with_an_old_number_is_attached(either):
    """As when the agent was dead while one went and the other came."""
    devices = either.attached()
    ip("link add pod0 type veth peer name pod1")
    either.settle(devices)
    first, second = index("pod0"), index("pod1")
    ip(
        "link del pod0",
        f"link add pod0 index {first} type veth peer name pod1 index {second}",
        "link set pod0 up",
        "link set pod1 up",
    )
    either.attached()
    either.meets("pod0", IN, lambda: transmit("pod1", FRAME))


def test_pins_of_devices_that_went_while_the_agent_was_dead_are_removed(either):
    either.attached()
    ip("link add pod0 type veth peer name pod1")
    either.attached()
    count = len(either.pins())
    ip("link del pod0")
    either.attached()
    assert len(either.pins()) == max(count - 4, 0)
    assert {int(path.name) for path in either.qdiscs.glob("*")} <= {
        1,
        index("up0"),
    }


def test_a_burst_of_devices_that_come_and_go(node):
    """Some go before we get to them; in the end programs are where devices are, and no more."""
    node.by_tcx = False  # by tcx, RCU alone takes 10 s
    devices = node.attached()
    other = namespace_path(node.outside.fd)
    pods = [f"p{n}" for n in range(200)]
    ip(*(f"link add {name} type veth peer name {name} netns {other}" for name in pods))
    ip(*(f"link set {name} group {2 + n % 2}" for n, name in enumerate(pods)))
    devices.tend(0.0)
    ip("link del group 2")
    node.settle(devices)

    for name in pods[1::2]:
        assert traffic_control.filters(index(name), Parent.EGRESS), name
    assert len(list(node.qdiscs.iterdir())) == 100 + 2
    assert len(list(node.loaded.maps["devices"].keys())) == len(links())
    ip("link del group 3")
    node.settle(devices)
    assert len(list(node.qdiscs.iterdir())) == 2
    assert len(list(node.loaded.maps["devices"].keys())) == len(links())
    assert devices.attached()


def test_many_devices_are_attached_in_short_steps(node):
    """Of one device where the budget is no larger, so that no change waits for all of them."""
    node.by_tcx = False
    ip(*(f"link add p{n} type veth peer name q{n}" for n in range(50)))
    devices = node.start()
    devices.attach(node.programs())
    steps = 0
    while devices.tend(0.0):
        steps += 1
    assert steps >= 99


def test_a_restart_finds_everything_in_place(either):
    either.attached()
    pins = either.pins()
    stamps = {name: (either.links / name).stat().st_ino for name in pins}
    either.attached()
    assert {name: (either.links / name).stat().st_ino for name in pins} == stamps
    assert either.order(either.come_in) == ["ours"]


def test_the_agents_death_changes_nothing(either):
    either.attached().close()
    assert either.seen("up0", IN, either.come_in) == 1
    assert either.seen("up0", OUT, either.leave) == 1


KINDS = {
    "dummy": "link add x0 type dummy",
    "a VLAN": "link add link up0 name x0 type vlan id 100",
    "a VLAN in VLANs": "link add link up0 name x0 type vlan id 100 protocol 802.1ad",
    "Geneve": "link add x0 type geneve id 7 remote 192.0.2.2",
    "ipip": "link add x0 type ipip local 192.0.2.1 remote 192.0.2.2",
    "sit": "link add x0 type sit local 192.0.2.1 remote 192.0.2.2",
    "GRE": "link add x0 type gre local 192.0.2.1 remote 192.0.2.2",
    "ip6tnl": "link add x0 type ip6tnl mode any local fd00::1 remote fd00::2",
    "GRE over IPv6": "link add x0 type ip6gre local fd00::1 remote fd00::2",
    "WireGuard": "link add x0 type wireguard",
    "ipvlan": "link add link up0 name x0 type ipvlan",
    "a bond": "link add x0 type bond",
}


def test_kinds_of_devices_that_not_every_kernel_has_run_our_programs(node):
    """Of those the kernel at hand may have none; which it has is printed."""
    devices = node.attached()
    for kind, command in KINDS.items():
        if not can_make(kind, command):
            continue
        ip("link set x0 up")
        node.settle(devices)
        entry = node.loaded.maps["devices"].lookup(number(index("x0")))
        before = node.runs("x0", OUT)
        with suppress(OSError):  # WireGuard refuses what is not IP, behind our program
            transmit("x0", FRAME if entry[0] & DeviceFlag.ETHERNET else PACKET)
        assert node.runs("x0", OUT) == before + 1, kind
        ip("link del x0")
        node.settle(devices)


def test_a_bonds_members_are_left_to_it(node):
    if not can_make("a bond", "link add bond0 type bond mode active-backup"):
        return
    ip("link add m0 type veth peer name m1")
    devices = node.attached()
    ip("link set m0 down", "link set m0 master bond0", "link set bond0 up", "link set m1 up")
    node.settle(devices)

    assert not has_programs(node, "m0")
    node.meets("bond0", IN, lambda: transmit("m1", FRAME))
    assert node.runs("m0", IN) == 0
    ip("link set m0 nomaster", "link set m0 up")
    node.settle(devices)
    node.meets("m0", IN, lambda: transmit("m1", FRAME))


@pytest.mark.parametrize("kind", ["ifb", "vrf table 9", "nlmon"])
def test_what_would_see_packets_twice_runs_no_program(node, kind):
    if can_make(kind, f"link add x0 type {kind}"):
        ip("link set x0 up")
        assert node.attached().attached()
        assert not has_programs(node, "x0")


def has_programs(node, name):
    pinned = any(each.startswith(f"{index(name)}-") for each in node.pins())
    return pinned or any(traffic_control.filters(index(name), parent) for parent in Parent)


def can_make(kind, command):
    """Make a device of a kind that the kernel may lack; say whether it has it."""
    made = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)
    lacking = "Unknown device type" in made.stderr
    print(kind, "is a kind that this kernel", "lacks" if lacking else "has")
    assert lacking or not made.returncode, made.stderr
    return not lacking
