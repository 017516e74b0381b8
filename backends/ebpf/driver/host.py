"""The one entry that tells programs the settings of their node."""

from __future__ import annotations

import dataclasses
import socket
import struct

from backends.ebpf.driver import device_layout
from backends.ebpf.driver.device_layout import Host, HostFlag, SocketHooks
from backends.kernel import sysctl
from backends.kernel.bpf.maps import Map
from kproxy.ports.data_path import BackendError

_NETNS_COOKIE = 71  # SO_NETNS_COOKIE (Linux 5.14)
_COOKIE = struct.Struct("=Q")
_DOING = "asking for the cookie of this network namespace"


class HostSettings:
    """Writes the map `host`. Any call may raise BackendError."""

    def __init__(self, kernel_map: Map) -> None:
        self._map = kernel_map

    def write(self, *, mark: int, node_ports: tuple[int, int], socket_hooks: SocketHooks) -> None:
        """Write what was chosen, and what the host says of itself; flags stay as they are."""
        self._put(
            Host(
                netns_cookie=netns_cookie(),
                flags=self.read().flags,
                mark=mark,
                local_ports=sysctl.local_ports(),
                node_ports=node_ports,
                socket_hooks=socket_hooks,
            )
        )

    def follow(self) -> None:
        """Write anew what the host may have changed of itself."""
        settings = self.read()
        if settings.local_ports != (now := sysctl.local_ports()):
            self._put(dataclasses.replace(settings, local_ports=now))

    def set(self, flag: HostFlag, *, on: bool) -> None:
        """Raise or lower a flag."""
        settings = self.read()
        flags = settings.flags | flag if on else settings.flags & ~flag
        if flags != settings.flags:
            self._put(dataclasses.replace(settings, flags=flags))

    def read(self) -> Host:
        """Return what the map says: zeros before the first `write`."""
        value = self._map.lookup(device_layout.ONLY)
        assert value is not None, "an array has all its entries"
        return device_layout.parse_host(value)

    def _put(self, settings: Host) -> None:
        self._map.update(device_layout.ONLY, device_layout.host(settings))


def netns_cookie() -> int:
    """Return the number by which programs know this network namespace. Raises BackendError."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            value = sock.getsockopt(socket.SOL_SOCKET, _NETNS_COOKIE, _COOKIE.size)
    except OSError as error:
        raise BackendError(_DOING, error.strerror or "", transient=False) from error
    return int(_COOKIE.unpack(value)[0])
