"""The settings of the node's kernel that forwarding depends on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

_SYSCTL = Path("/proc/sys")
_FORWARDING = {
    Family.IPV4: "net/ipv4/ip_forward",
    Family.IPV6: "net/ipv6/conf/all/forwarding",
}
_LOCAL_PORTS = "net/ipv4/ip_local_port_range"  # holds for IPv6 too
_DEFAULT_LOCAL_PORTS = (32768, 60999)
LOOPBACK_SETTINGS = ("accept_local", "route_localnet")
"""What IPv4 packets need that come back to the host through its loopback device."""

TCP_LIBERAL = _SYSCTL / "net/netfilter/nf_conntrack_tcp_be_liberal"
"""There only while the kernel has its connection tracking loaded."""

# accept_ra (kernel, ip-sysctl.rst): 1 means "unless forwarding", 2 "also when forwarding".
_UNLESS_FORWARDING = "1"
_ALSO_FORWARDING = "2"
_NO_INTERFACES = frozenset({"all", "default"})


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting by its file below /proc/sys, and the value that is wanted of it."""

    file: str
    value: str

    @property
    def name(self) -> str:
        """What sysctl(8) calls it."""
        return _sysctl_name(self.file)

    def exists(self) -> bool:
        """Say whether this kernel has it."""
        return _read(self.file) is not None

    def holds(self) -> bool:
        """Say whether it has the value."""
        return _read(self.file) == self.value

    def put(self) -> None:
        """Give it the value. Raises BackendError."""
        if not self.holds():
            _write(self.file, self.value)


@dataclass(frozen=True, slots=True)
class Forwarding:
    """That the node forwards packets of a family."""

    family: Family

    @property
    def name(self) -> str:
        """What sysctl(8) calls it."""
        return forwarding_name(self.family)

    @property
    def value(self) -> str:
        """What is wanted of it."""
        return "1"

    def holds(self) -> bool:
        """Say whether it forwards."""
        return forwards(self.family)

    def put(self) -> None:
        """Make it forward. Raises BackendError."""
        forward(self.family)


LOCALNET = Setting("net/ipv4/conf/all/route_localnet", "1")
"""That packets from other hosts may name loopback addresses, which needs a guard."""


def forwards(family: Family) -> bool:
    """Say whether the node forwards packets."""
    return _read(_FORWARDING[family]) not in (None, "0")


def forward(family: Family) -> None:
    """Make the node forward packets. Raises BackendError.

    An interface that has its IPv6 routes from router advertisements goes on listening to them:
    without that, turning forwarding on would cost the node its default route.
    """
    if forwards(family):
        return
    if family is Family.IPV6:
        for setting in _advertised_interfaces():
            _write(setting, _ALSO_FORWARDING)
    _write(_FORWARDING[family], "1")


def routes_localnet() -> bool:
    """Say whether packets from other hosts may name loopback addresses."""
    return LOCALNET.holds()


def route_localnet(wanted: str) -> None:
    """Set route_localnet to "1" or "0". Raises BackendError.

    On, it needs a guard in the filter table against such packets (CVE-2020-8558).
    """
    Setting(LOCALNET.file, wanted).put()


def local_ports() -> tuple[int, int]:
    """Return the first and the last port that the kernel gives to sockets by itself."""
    first, last = map(int, (_read(_LOCAL_PORTS) or "").split() or _DEFAULT_LOCAL_PORTS)
    return first, last


def loopback(setting: str) -> bool:
    """Say whether a setting of the loopback device alone is on."""
    return _read(_of_loopback(setting)) == "1"


def set_loopback(setting: str, wanted: str) -> None:
    """Set a setting of the loopback device alone to "1" or "0". Raises BackendError."""
    if _read(_of_loopback(setting)) != wanted:
        _write(_of_loopback(setting), wanted)


def tracks_liberally(setting: Path) -> bool:
    """Say whether connection tracking takes TCP segments that it cannot place for valid.

    Then it is meant to see half of a connection only, and INVALID says nothing (as upstream).
    """
    try:
        return setting.read_text().strip() != "0"
    except OSError:
        return False  # it is not loaded yet


def forwarding_path(family: Family) -> Path:
    """Return the file of the setting that turns forwarding on."""
    return _SYSCTL / _FORWARDING[family]


def forwarding_name(family: Family) -> str:
    """Return the sysctl that turns forwarding on."""
    return _sysctl_name(_FORWARDING[family])


def localnet_name() -> str:
    """Return the sysctl that lets packets from other hosts name loopback addresses."""
    return LOCALNET.name


def _advertised_interfaces() -> Iterator[str]:
    for interface in sorted((_SYSCTL / "net/ipv6/conf").glob("*")):
        setting = f"net/ipv6/conf/{interface.name}/accept_ra"
        if interface.name not in _NO_INTERFACES and _read(setting) == _UNLESS_FORWARDING:
            yield setting


def _read(setting: str) -> str | None:
    try:
        return (_SYSCTL / setting).read_text().strip()
    except OSError:
        return None  # an interface that went, or a kernel without IPv6: writing will tell


def _write(setting: str, value: str) -> None:
    try:
        (_SYSCTL / setting).write_text(value)
    except OSError as error:
        name = _sysctl_name(setting)
        detail = f"{error.strerror}; set it on the host: sysctl -w {name}={value}"
        raise BackendError(f"setting {name} to {value}", detail, transient=False) from error


def _of_loopback(setting: str) -> str:
    return f"net/ipv4/conf/lo/{setting}"


def _sysctl_name(setting: str) -> str:
    """Return the name by which the sysctl program knows a setting."""
    return setting.replace("/", ".")
