"""What connections left in maps, taken over into maps of another size.

A map of the same shape goes over as it is (loader.py). Out of a larger or a smaller one a version
would know no open connection.
"""

from __future__ import annotations

import errno

from backends.kernel.bpf.maps import BatchRefusal, Map

MAPS = frozenset({"flows", "affinity", "tcp_sockets", "udp_sockets"})
"""What programs alone write, and need for as long as connections last."""


def copy(former: Map, following: Map) -> int:
    """Copy the entries that are missing, as many as there is room for; return how many.

    Where keys or values have another layout there is nothing to copy. Raises KernelRefusal.
    """
    if former.shape._replace(max_entries=0) != following.shape._replace(max_entries=0):
        return 0
    there = {key for part in following.parts() for key, _ in part}
    copied = 0
    try:
        for part in former.parts():
            missing = {key: value for key, value in part if key not in there}
            following.update_many(missing)
            copied += len(missing)
    except BatchRefusal as error:
        if error.number != errno.E2BIG:
            raise
        copied += error.applied
    return copied
