"""The settings of the node that ipvs needs, as part of the image.

All of them hold for both families, and none is ever given back: nobody can tell who else relies on
it. Their meaning: Documentation/networking/ipvs-sysctl.rst and ip-sysctl.rst of the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from backends.ipvs.options import IpvsOptions
from backends.kernel.node import kernel_version
from backends.kernel.sysctl import Forwarding, Setting
from backends.kernel.sysctls import NodeSetting, Settings
from backends.kernel.virtual_servers import Timeouts, VirtualServers
from backends.kernel.xtables.wording import sysctl_key
from kproxy.core.addresses import Family
from kproxy.core.image import Key

TRACKING = Setting("net/ipv4/vs/conntrack", "1")
"""Connection tracking sees what ipvs translates, without which no rule knows it."""

# What a client sends to an endpoint that is gone makes it connect anew, and a client with affinity
# gets another endpoint when its own takes no more connections.
_EXPIRING = (
    Setting("net/ipv4/vs/expire_nodest_conn", "1"),
    Setting("net/ipv4/vs/expire_quiescent_template", "1"),
)
_PORT_REUSE = "net/ipv4/vs/conn_reuse_mode"
_REUSED_AT_ONCE = (5, 9)

_STRICT_ARP = (
    Setting("net/ipv4/conf/all/arp_ignore", "1"),
    Setting("net/ipv4/conf/all/arp_announce", "2"),
)


@dataclass(frozen=True, slots=True)
class ConnectionTimeouts:
    """The timeouts of ipvs, as a setting of the node; those of 0 may be anything."""

    wanted: Timeouts

    @property
    def name(self) -> str:
        """What a log line calls it."""
        return "ipvs timeouts"

    @property
    def value(self) -> str:
        """What is wanted of it."""
        chosen = zip(("tcp", "tcpfin", "udp"), self.wanted, strict=True)
        return ", ".join(f"{name} {seconds} s" for name, seconds in chosen if seconds)

    def holds(self) -> bool:
        """Say whether the kernel has them. Raises BackendError."""
        with VirtualServers("reading ipvs timeouts") as kernel:
            found = kernel.timeouts()
        return all(wanted in (0, has) for wanted, has in zip(self.wanted, found, strict=True))

    def put(self) -> None:
        """Set them. Raises BackendError."""
        with VirtualServers(f"setting {self.name} to {self.value}") as kernel:
            kernel.set_timeouts(self.wanted)


class NodeSettings:
    """One family's settings.

    What is refused does not stop the rules: in a container /proc/sys cannot be written. It counts
    as done until `settle` tries it again.
    """

    def __init__(self, family: Family, options: IpvsOptions) -> None:
        wanted = node_settings(family, options, kernel_version(os.uname().release))
        self._settings = Settings(wanted, sysctl_key)
        self._rendered = False

    def render(self) -> dict[Key, bytes]:
        """Return the image entries, once: they stay as they are."""
        first, self._rendered = not self._rendered, True
        return self._settings.image() if first else {}

    def observe(self) -> dict[Key, bytes]:
        """Return the image of what is as wanted. Raises BackendError."""
        return self._settings.observe(self._settings.image().keys())

    def disturbed(self) -> bool:
        """Say whether others altered something since we last looked. Raises BackendError."""
        return self._settings.disturbed()

    def put(self, keys: Iterable[Key]) -> None:
        """Make those of these as wanted that are ours; what is refused waits for `settle`."""
        for key in sorted(self._settings.image().keys() & set(keys)):
            self._settings.put(key)

    def settle(self) -> None:
        """Try again what was refused. Raises BackendError."""
        self._settings.settle()


def node_settings(
    family: Family, options: IpvsOptions, kernel: tuple[int, int]
) -> Iterator[NodeSetting]:
    """Yield what a family needs on a version of the kernel."""
    yield Forwarding(family)
    yield TRACKING
    yield from _EXPIRING
    yield _port_reuse(kernel)
    if options.strict_arp and family is Family.IPV4:
        yield from _STRICT_ARP
    if any(options.timeouts):
        yield ConnectionTimeouts(options.timeouts)


def _port_reuse(kernel: tuple[int, int]) -> Setting:
    """Return whether a client's port that is used again gets an endpoint chosen anew.

    Else the connection goes where the last one went, also to an endpoint that takes no others. An
    older kernel drops the first packet of each such connection, which costs a second.
    """
    return Setting(_PORT_REUSE, "1" if kernel >= _REUSED_AT_ONCE else "0")
