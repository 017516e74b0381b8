"""A node whose devices are followed, and programs that tell where and in which order they ran."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from backends.ebpf.driver import tcx
from backends.ebpf.driver.attach import Attacher
from backends.ebpf.driver.claims import Claims
from backends.ebpf.driver.devices import Devices
from backends.ebpf.driver.loopback import Loopback
from backends.ebpf.driver.sides import Programs, Side
from backends.ebpf.places import family_folder, shared_folder
from backends.kernel import traffic_control
from backends.kernel.bpf import links, objects
from backends.kernel.bpf.links import Link, Order
from backends.kernel.bpf.programs import AttachType, Program
from backends.kernel.traffic_control import Filter, Parent
from kproxy.core.addresses import Family
from tests.support import waiting
from tests.support.ebpf.sources import Loaded, Sources
from tests.support.net.namespace import Namespace

SOURCE = """
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/pkt_cls.h>
#include <kproxy/device.h>
#include <kproxy/claims.h>

struct place { __u32 device; __u32 egress; };
BPF_HASH(runs, struct place, u64, 65536);
BPF_ARRAY(stamps, u64, 16);

/* Of our packets alone: the kernel sends some of its own when it likes. */
#define ETHERTYPE bpf_htons(0x88b5) /* for experiments */

static __always_inline int stamp(struct __sk_buff *skb, int program)
{
	int zero = 0;
	u64 *clock = stamps.lookup(&zero);
	u64 *own = stamps.lookup(&program);

	if (clock && own && skb->protocol == ETHERTYPE)
		*own = __sync_fetch_and_add(clock, 1) + 1;
	return TC_ACT_UNSPEC;
}

static __always_inline int ran(struct __sk_buff *skb, __u32 egress)
{
	struct place place = { .device = skb->ifindex, .egress = egress };
	u64 zero = 0;
	u64 *count = runs.lookup_or_try_init(&place, &zero);

	if (count && skb->protocol == ETHERTYPE)
		__sync_fetch_and_add(count, 1);
	return stamp(skb, 1 + egress);
}

int ingress(struct __sk_buff *skb) { return ran(skb, 0); }
int egress(struct __sk_buff *skb) { return ran(skb, 1); }
int newer_ingress(struct __sk_buff *skb) { return ran(skb, 0); }
int newer_egress(struct __sk_buff *skb) { return ran(skb, 1); }
int kin(struct __sk_buff *skb) { return stamp(skb, 3); }
int foreign(struct __sk_buff *skb) { return stamp(skb, 4); }
int another(struct __sk_buff *skb) { return stamp(skb, 5); }

int is_own(struct __sk_buff *skb)
{
	struct address address = {};

	bpf_skb_load_bytes(skb, ETH_HLEN, &address, sizeof(address));
	return is_own_address(&address);
}

int may_be_ours(struct __sk_buff *skb)
{
	struct address address = {};

	bpf_skb_load_bytes(skb, ETH_HLEN, &address, sizeof(address));
	if (is_in_claimed_prefix(address.word))
		return 1;
	return claimed_as(claim_hash(address.word, ADDRESS_WORDS)) & 1;
}

int masquerade(struct __sk_buff *skb)
{
	struct address towards = {};
	const struct address *found;

	bpf_skb_load_bytes(skb, ETH_HLEN, &towards, sizeof(towards));
	found = masquerade_address(skb->mark, &towards);
	if (!found)
		return 0;
	towards = *found;
	bpf_skb_store_bytes(skb, ETH_HLEN, &towards, sizeof(towards), 0);
	return 1;
}
"""
STAMPS = ("ours", "ours", "kin", "foreign", "another")
PLACE = struct.Struct("=II")
COUNT = struct.Struct("=Q")

TYPES = {Side.INGRESS: AttachType.TCX_INGRESS, Side.EGRESS: AttachType.TCX_EGRESS}
PARENTS = {Side.INGRESS: Parent.INGRESS, Side.EGRESS: Parent.EGRESS}

_ETHERTYPE = 0x88B5
PACKET = bytes(46)
FRAME = b"\xff" * 6 + bytes.fromhex("02000000aaaa") + struct.pack("!H", _ETHERTYPE) + PACKET
TUN_PACKET = struct.pack("!HH", 0, _ETHERTYPE) + PACKET
"""What comes in by a tun device that tells flags and ethertype before each packet."""

_TUNSETIFF, _TUN, _TAP, _NO_INFORMATION = 0x400454CA, 1, 2, 0x1000


def ip(*commands: str) -> None:
    """Run commands of ip(8) in the namespace of the caller, all in one process."""
    text = "".join(command + "\n" for command in commands)
    subprocess.run(["ip", "-batch", "-"], input=text, text=True, check=True)


def index(name: str) -> int:
    """Return the number of a device."""
    return socket.if_nametoindex(name)


class Node:
    """A network namespace with loopback and `up0`, whose other end `up1` is outside.

    The caller is inside; `start` is a start of the agent. Time passes by `later` alone.
    """

    def __init__(self, sources: Sources, bpffs: Path, family: Family, inside: Namespace) -> None:
        unit = sources.unit(SOURCE, family, name="devices.bpf.c")
        self.loaded = Loaded(unit)
        self.family = family
        self.root = bpffs
        self.links = shared_folder(bpffs) / "devices"
        self.qdiscs = bpffs / "kproxy" / "qdiscs"
        self.by_tcx = tcx.supported()
        self.now_s = 1000.0
        self.outside = Namespace("outside")
        self.inside = inside
        ip("link set lo up", "link add up0 type veth peer name up1", "link set up0 up")
        self.send_away("up1")
        with self.outside.entered():
            ip("link set up1 up")
        self._wait_for_the_wire()
        self._agents: list[Devices] = []

    def start(self) -> Devices:
        """Start an agent's follower of devices."""
        return self._follower(Attacher(self.root, by_tcx=self.by_tcx))

    def start_both(self) -> tuple[Devices, Devices]:
        """Start two followers of one agent, as families have them."""
        attacher = Attacher(self.root, by_tcx=self.by_tcx)
        return self._follower(attacher), self._follower(attacher)

    def attached(self) -> Devices:
        """Start an agent and let it attach everything."""
        devices = self.start()
        self.attach(devices)
        return devices

    def attach(self, devices: Devices) -> None:
        """Let a follower attach everything."""
        with self.inside.entered():
            devices.attach(self.programs())
            self.settle(devices)

    def settle(self, devices: Devices) -> None:
        """Let an agent do what is due at this moment."""
        while devices.tend(1.0):
            pass

    def later(self, devices: Devices, seconds: int = 5) -> None:
        """Let time pass, with an agent that is asked each second."""
        for _ in range(seconds):
            self.now_s += 1
            self.settle(devices)

    def programs(self, newer: bool = False) -> Programs:
        """Return what is attached; `newer` is another version."""
        found = self.loaded.programs
        stem = "newer_" if newer else ""
        return Programs(found[f"{stem}ingress"], found[f"{stem}egress"])

    def send_away(self, device: str) -> None:
        """Move a device to the outside."""
        ip(f"link set {device} netns {namespace_path(self.outside.fd)}")

    def take_back(self, device: str) -> None:
        """Move a device from the outside to the node."""
        with self.outside.entered():
            ip(f"link set {device} netns {namespace_path(self.inside.fd)}")

    def runs(self, device: str | int, side: Side) -> int:
        """Return how often our program ran at a device."""
        number = index(device) if isinstance(device, str) else device
        value = self.loaded.maps["runs"].lookup(PLACE.pack(number, side is Side.EGRESS))
        return COUNT.unpack(value)[0] if value else 0

    def seen(self, device: str, side: Side, send: Callable[[], object]) -> int:
        """Return how often our program ran at a device while something was sent."""
        before = self.runs(device, side)
        send()
        return self.runs(device, side) - before

    def meets(self, device: str, side: Side, send: Callable[[], object]) -> None:
        """Send until our program has run at a device that came up just now.

        The kernel hears of a carrier when it likes, and drops what is sent before.
        """
        waiting.until(
            lambda: self.seen(device, side, send),
            within_s=waiting.LONGEST_S,
            what=f"a packet at the {side.value} of {device}",
        )

    def order(self, send: Callable[[], object]) -> list[str]:
        """Return which programs met the packet that is sent, in their order."""
        stamps = self.loaded.maps["stamps"]
        for number in range(1 + len(STAMPS)):
            stamps.update(struct.pack("=I", number), bytes(COUNT.size))
        send()
        read = [stamps.lookup(struct.pack("=I", number)) for number in range(1, 1 + len(STAMPS))]
        at = [COUNT.unpack(value or bytes(COUNT.size))[0] for value in read]
        return [name for when, name in sorted(zip(at, STAMPS, strict=True)) if when]

    def come_in(self, packets: int = 1) -> None:
        """Let packets come in by the uplink."""
        with self.outside.entered():
            transmit("up1", FRAME, packets)

    def leave(self, packets: int = 1) -> None:
        """Let packets leave by the uplink."""
        transmit("up0", FRAME, packets)

    def pins(self) -> set[str]:
        """Return the names of all pinned links."""
        return {path.name for path in self.links.iterdir()} if self.links.exists() else set()

    def _follower(self, attacher: Attacher) -> Devices:
        devices = Devices(
            self.family,
            self.loaded.maps,
            claims=Claims(self.family, self.loaded.maps["claims"]),
            attacher=attacher,
            loopback=Loopback(self.family, self.root),
            clock=lambda: self.now_s,
        )
        self._agents.append(devices)
        return devices

    def _wait_for_the_wire(self) -> None:
        """Wait until packets get from one end to the other, both ways."""
        with ExitStack() as held:
            taps = [held.enter_context(tap("up0"))]
            with self.outside.entered():
                taps.append(held.enter_context(tap("up1")))

            def passes() -> bool:
                self.come_in()
                self.leave()
                return all(map(received, taps))

            waiting.until(passes, within_s=waiting.LONGEST_S, what="the uplink's carrier")

    def close(self) -> None:
        """Let go of everything."""
        for each in self._agents:
            each.close()
        self.loaded.close()
        self.outside.close()


def namespace_path(fd: int) -> str:
    """Return where ip(8) finds a namespace that this process holds."""
    return f"/proc/{os.getpid()}/fd/{fd}"


def transmit(device: str, frame: bytes, packets: int = 1) -> None:
    """Send frames by a device, with the link header that it has."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((device, _ETHERTYPE))
        for _ in range(packets):
            sock.send(frame)


def tap(device: str) -> socket.socket:
    """Return a socket that gets what comes in by a device, if it is one of our packets."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    sock.bind((device, _ETHERTYPE))
    return sock


def received(sock: socket.socket) -> bool:
    """Say whether a tap has got something since it was last asked."""
    try:
        while sock.recvfrom(1)[1][2] == socket.PACKET_OUTGOING:
            pass
    except BlockingIOError:
        return False
    return True


@contextmanager
def tunnel(name: str, *, tap: bool) -> Iterator[int]:
    """Give the other end of a tun or tap device: what is written to it comes in by the device."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    flags = _TAP | _NO_INFORMATION if tap else _TUN
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH14x", name.encode(), flags))
    try:
        yield fd
    finally:
        os.close(fd)


def foreign_link(program: Program, device: str, side: Side, order: Order) -> Link:
    """Attach a program of somebody else by tcx."""
    return links.attach_to_device(program, index(device), TYPES[side], order)


def foreign_filter(program: Program, device: str, side: Side, priority: int = 1) -> Filter:
    """Attach a program of somebody else by clsact."""
    traffic_control.add_clsact(index(device))
    wanted = Filter(priority, 1, "bpf", "cil_to_netdev", program.number)
    assert traffic_control.put_filter(index(device), PARENTS[side], wanted, program, replace=False)
    return wanted


def link_numbers(device: str, side: Side) -> list[int]:
    """Return the links of a device, in their order."""
    return [each.link for each in links.attached(index(device), TYPES[side]).programs]


def pin_as_former(link: Link, root: Path, family: Family, side: Side) -> None:
    """Pin a link where a kproxy had it that attached each family's programs by itself."""
    folder = family_folder(root, family) / "devices"
    folder.mkdir(parents=True, exist_ok=True)
    with link:
        objects.pin(link, folder / f"{link.info().target}-{side.value}")
