"""What of the kernel some data paths need."""

from __future__ import annotations

from backends.kernel.virtual_servers import NoIpvs, VirtualServers


def no_ipvs() -> str:
    """Return why there can be no mode ipvs here, "" if there can."""
    try:
        with VirtualServers("looking for ipvs"):
            return ""
    except NoIpvs:
        return "this kernel has no ip_vs"
