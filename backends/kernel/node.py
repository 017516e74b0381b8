"""What every data path needs of the node, as the host check tells it."""

from __future__ import annotations

import os
import re

from backends.kernel import sysctl
from backends.kernel.default_routes import has_default_route
from kproxy.core.addresses import Family
from kproxy.ports.data_path import Finding


def kernel_version(release: str) -> tuple[int, int]:
    """Return the version in the name of a kernel, (0, 0) if there is none."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def forwarding(family: Family) -> Finding:
    """Return whether the node forwards packets, or can be made to."""
    name = sysctl.forwarding_name(family)
    if sysctl.forwards(family):
        return Finding(name, True, "on")
    if os.access(sysctl.forwarding_path(family), os.W_OK):
        return Finding(name, True, "off; kproxy turns it on")
    return Finding(name, False, "off, and cannot be written here", f"sysctl -w {name}=1")


def default_route(family: Family) -> Finding:
    """Return whether the node can send to addresses that no other route covers."""
    if has_default_route(family):
        return Finding("default route", True, "present")
    return Finding(
        "default route",
        False,
        "none: the node itself cannot send to an address of a Service that no route covers",
        "add a default route, or a route for the ServiceCIDR",
        blocking=False,
    )
