"""The entries of the maps that tell programs of their node, packed as in kproxy/device.h."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

_DEVICE = struct.Struct("=II6s2x")
_HOST = struct.Struct("=QII4HB7x")
_NUMBER = struct.Struct("=I")
_DEVICE_BITS = 32

ONLY = bytes(4)
"""The key of the map `host`."""

OWN = b"\1"
"""The value in `own_networks`."""

ANY_DEVICE = 0
"""What `masquerade_addresses` has for devices without an address."""


class DeviceFlag(IntFlag):
    """enum device_flags."""

    POD = 1
    ETHERNET = 2
    BRIDGE = 4
    LOOPBACK = 8


class HostFlag(IntFlag):
    """enum host_flags."""

    HAND_OVER = 1
    WITHDRAWN = 2


class SocketHooks(IntEnum):
    """enum socket_hooks."""

    ALL = 0
    HOST = 1
    OFF = 2


@dataclass(frozen=True, slots=True)
class Host:
    """struct host; ranges of ports are inclusive."""

    netns_cookie: int
    flags: HostFlag
    mark: int
    local_ports: tuple[int, int]
    node_ports: tuple[int, int]
    socket_hooks: SocketHooks


def number(value: int) -> bytes:
    """Return a key or value that is a number of 32 bits."""
    return _NUMBER.pack(value)


def device(flags: DeviceFlag, bridge: int, mac: bytes) -> bytes:
    """Return a struct device."""
    return _DEVICE.pack(flags, bridge, mac)


def network_key(length: int, network: bytes) -> bytes:
    """Return a struct own_network_key."""
    return _NUMBER.pack(length) + network


def masquerade_key(device: int, length: int, towards: bytes) -> bytes:
    """Return a struct masquerade_key; `length` counts the bits of `towards` alone."""
    return _NUMBER.pack(_DEVICE_BITS + length) + _NUMBER.pack(device) + towards


def host(settings: Host) -> bytes:
    """Return a struct host."""
    return _HOST.pack(
        *(settings.netns_cookie, settings.flags, settings.mark),
        *settings.local_ports,
        *settings.node_ports,
        settings.socket_hooks,
    )


def parse_host(value: bytes) -> Host:
    """Return what a struct host says."""
    cookie, flags, mark, *ports, hooks = _HOST.unpack(value)
    return Host(
        netns_cookie=cookie,
        flags=HostFlag(flags),
        mark=mark,
        local_ports=(ports[0], ports[1]),
        node_ports=(ports[2], ports[3]),
        socket_hooks=SocketHooks(hooks),
    )
