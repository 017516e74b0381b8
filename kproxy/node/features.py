"""What this host offers to data paths, read from files alone: nothing is loaded or changed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kproxy.core.addresses import Family
from kproxy.ports.data_path import Finding

_NFTABLES_SINCE = (5, 13)
_VERSION = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class HostFeatures:
    """A host to look at: `root` is where its files are, `release` its kernel's name.

    `find_program` returns where a program is, None if it is not installed.
    """

    root: Path
    release: str
    find_program: Callable[[str], str | None]

    def has(self, path: str) -> bool:
        """Say whether a file or folder exists."""
        return (self.root / path).exists()

    def text(self, path: str) -> str:
        """Return what a file holds, "" if it cannot be read."""
        try:
            return (self.root / path).read_text(errors="replace")
        except OSError:
            return ""

    @property
    def kernel(self) -> tuple[int, int]:
        """The kernel's version, (0, 0) if its name has none."""
        found = _VERSION.match(self.release)
        return (int(found[1]), int(found[2])) if found else (0, 0)


def ip_families(root: Path) -> tuple[Family, ...]:
    """Return the IP families that the kernel has turned on (reference 1.1, "dual stack")."""
    off = "proc/sys/net/ipv6/conf/all/disable_ipv6"
    try:
        has_ipv6 = (root / off).read_text().strip() == "0"
    except OSError:
        has_ipv6 = False
    if has_ipv6 and (root / "proc/net/if_inet6").exists():
        return (Family.IPV4, Family.IPV6)
    return (Family.IPV4,)


def privilege(host: HostFeatures) -> Finding:
    """Return whether this process may change the kernel's rules."""
    name = "CAP_NET_ADMIN"
    if has_net_admin(host.text("proc/self/status")):
        return Finding(name, ok=True, detail="held")
    return Finding(name, ok=False, detail="not held", remedy="run as root")


def families(host: HostFeatures) -> Finding:
    """Return which IP families there are to serve."""
    names = " and ".join(family.value for family in ip_families(host.root))
    return Finding("IP families", ok=True, detail=names)


def nftables(host: HostFeatures) -> list[Finding]:
    """Return what the nftables data path needs."""
    return [
        _kernel_since(host, _NFTABLES_SINCE),
        _feature(host, "nf_tables", function="nft_do_chain"),
        _program(host, "nft", "nftables"),
    ]


def has_net_admin(status: str) -> bool:
    """Say whether /proc/<pid>/status shows CAP_NET_ADMIN, bit 12 in linux/capability.h."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> 12 & 1)


def _kernel_since(host: HostFeatures, version: tuple[int, int]) -> Finding:
    name = "kernel >= {}.{}".format(*version)
    if host.kernel >= version:
        return Finding(name, ok=True, detail=host.release)
    return Finding(name, ok=False, detail=host.release, remedy="boot a newer kernel")


def _feature(host: HostFeatures, name: str, *, function: str) -> Finding:
    """Return whether the kernel has a module's feature, of which `function` is a part."""
    subject = f"kernel feature {name}"
    if re.search(rf" {function}(?:\s|$)", host.text("proc/kallsyms"), re.MULTILINE):
        return Finding(subject, ok=True, detail="loaded or built in")
    modules = f"lib/modules/{host.release}"
    file = re.compile(rf"(?:^|/){name}\.ko(?:\.\w+)?(?::|$)", re.MULTILINE)
    if file.search(host.text(f"{modules}/modules.dep")):
        return Finding(subject, ok=True, detail="a module that can be loaded")
    return Finding(
        subject,
        ok=False,
        detail=f"neither built in nor a module below /{modules}",
        remedy="boot the distribution's kernel, and install its modules package",
    )


def _program(host: HostFeatures, name: str, package: str) -> Finding:
    place = host.find_program(name)
    if place is not None:
        return Finding(f"program {name}", ok=True, detail=place)
    return Finding(
        f"program {name}",
        ok=False,
        detail="not installed",
        remedy=f"install it: apt-get install {package}",
    )
