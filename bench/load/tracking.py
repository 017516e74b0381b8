"""What connection tracking of a namespace did not take."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.net.namespace import Namespace

_COUNTS = Path("/proc/thread-self/net/stat/nf_conntrack")
_REFUSALS = ("insert_failed", "drop", "early_drop")


def refused(namespace: Namespace) -> int:
    """Return how many packets found no room, or pushed another connection out."""
    with namespace.entered():
        if not _COUNTS.exists():
            return 0
        head, *lines = _COUNTS.read_text().splitlines()
    columns = [head.split().index(name) for name in _REFUSALS]
    return sum(int(line.split()[column], 16) for line in lines for column in columns)


def forget(namespace: Namespace) -> None:
    """Forget all connections, so that no port is still taken by an old one."""
    with namespace.entered():
        subprocess.run(["conntrack", "-F"], check=True, capture_output=True)
