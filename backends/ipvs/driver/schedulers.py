"""How virtual servers can choose among endpoints: by the schedulers that the kernel has."""

from __future__ import annotations

import re

from backends.kernel.virtual_servers import VirtualServers
from kproxy.ports.data_path import BackendError

# Those of Linux, of which any kernel has only some.
_KNOWN = (
    *("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh"),
    *("sh", "mh", "sed", "nq", "fo", "ovf", "twos"),
)
_NAME = re.compile(r"[a-z0-9_]{1,15}")  # IP_VS_SCHEDNAME_MAXLEN, with the final zero
_NOBODY = "none"  # such a server drops everything


def missing(name: str) -> str:
    """Return why virtual servers cannot choose so, "" if they can. Raises BackendError.

    The kernel loads modules for the answer, all that it has if it lacks this one.
    """
    with VirtualServers("asking for schedulers") as kernel:
        known = _NAME.fullmatch(name) is not None and name != _NOBODY
        if known and kernel.has_scheduler(name):
            return ""
        available = ", ".join(filter(kernel.has_scheduler, _KNOWN))
    return f"the kernel has no scheduler {name!r}; available: {available or 'none'}"


def require(name: str) -> None:
    """Raise BackendError if virtual servers cannot choose as configured."""
    reason = missing(name)
    if reason:
        doing = "choosing endpoints by ipvs.scheduler"
        raise BackendError(doing, f"{reason}; {remedy(name)}", transient=False)


def remedy(name: str) -> str:
    """Return what to do about a scheduler that is missing."""
    module = f"load the kernel module: modprobe ip_vs_{name}, or " if name in _KNOWN else ""
    return f"{module}choose another scheduler"
