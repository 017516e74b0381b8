"""Which devices programs are attached to, and what programs are told of a device. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from backends.ebpf.driver import device_layout
from backends.ebpf.driver.device_layout import DeviceFlag
from backends.ebpf.driver.waiting import Rank
from backends.kernel.links import Hardware, Link, LinkFlag
from kproxy.core.table import FromInterface, FromInterfacePrefix, LocalPods

# What packets begin with where programs can read them. Of tunnels and the like that is IP itself:
# WireGuard, tun and xfrm have no hardware at all.
_ETHERNET = frozenset({Hardware.ETHERNET, Hardware.LOOPBACK})
_BARE = frozenset(
    {
        *(Hardware.NONE, Hardware.RAW_IP, Hardware.PPP),
        *(Hardware.TUNNEL, Hardware.TUNNEL6, Hardware.SIT, Hardware.GRE, Hardware.GRE6),
    }
)

# A packet that meets one of these was seen at another device, and is seen there again.
_PASSED_TWICE = frozenset(
    {
        "ifb",  # gets what was redirected for shaping, and gives it back
        "vrf",  # stands for its members, which have the packets first
        *("nlmon", "vsockmon"),  # copies
    }
)

# Members of these are one device with their master; ports of a bridge are not.
_MASTERS_OF_MEMBERS = frozenset({"bond", "team"})

_BORN_SOON_UP = frozenset({"veth", "netkit"})

_UPLINK = 1
LAST_UPLINK: Rank = (_UPLINK, 1 << 32)
"""Loopback and uplinks rank no higher than this."""

GONE: Rank = (4, 0)
"""The rank of devices that are gone."""


def suits(link: Link) -> bool:
    """Say whether service traffic may come or leave by a device while it is up.

    A dummy device may have the route of a service network, and then the node's own packets are
    translated at it.
    """
    if link.hardware not in _ETHERNET | _BARE or link.kind in _PASSED_TWICE:
        return False
    if link.flags & LinkFlag.MEMBER or link.port_kind in _MASTERS_OF_MEMBERS:
        return False
    return link.hardware not in (Hardware.GRE, Hardware.GRE6) or _has_one_peer(link)


def is_due(link: Link) -> bool:
    """Say whether a device that suits shall have programs now.

    One that is down carries nothing and may stay so, but for the host's end of a pod's: programs
    must be there before its first packet.
    """
    return bool(link.flags & LinkFlag.UP) or link.kind in _BORN_SOON_UP


def _has_one_peer(link: Link) -> bool:
    """Say whether a tunnel's other end is fixed: else its outer header stands before packets."""
    peer = link.remote
    multicast = 0xFF if link.hardware == Hardware.GRE6 else 0xE0
    return any(peer) and peer[0] & multicast != multicast


def rank(link: Link, *, addressed: bool) -> Rank:
    """Return what sorts devices by how much depends on them: loopback, uplinks, the others."""
    if link.flags & LinkFlag.LOOPBACK:
        return 0, link.device
    if addressed or not link.kind:
        return _UPLINK, link.device
    return 2 if link.kind not in _BORN_SOON_UP else 3, link.device


def entry(link: Link, links: Mapping[int, Link], local_pods: LocalPods) -> bytes:
    """Return what the map `devices` has for a device."""
    bridge = links.get(link.master) if link.port_kind == "bridge" else None
    flags = DeviceFlag(0)
    if _is_pods((bridge or link).name, local_pods):
        flags |= DeviceFlag.POD
    if link.hardware in _ETHERNET:
        flags |= DeviceFlag.ETHERNET
    if link.kind == "bridge":
        flags |= DeviceFlag.BRIDGE
    if link.flags & LinkFlag.LOOPBACK:
        flags |= DeviceFlag.LOOPBACK
    mac = link.mac if flags & DeviceFlag.ETHERNET else b""
    return device_layout.device(flags, bridge.device if bridge else 0, mac)


def _is_pods(name: str, local_pods: LocalPods) -> bool:
    """Say whether packets with this input device are local pods'.

    The input device of what comes in by a port of a bridge is the bridge, as for every rule that
    names one.
    """
    match local_pods:
        case FromInterface(name=wanted):
            return name == wanted
        case FromInterfacePrefix(prefix=prefix):
            return name.startswith(prefix)
        case _:
            return False
