"""Removing everything of ours, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from backends.ipvs.driver.link import ServiceLink, SharedLink
from backends.ipvs.driver.ours import OURS
from backends.ipvs.driver.servers import raw_server
from backends.ipvs.driver.sets import Sets
from backends.kernel.virtual_servers import Server, VirtualServers
from backends.kernel.xtables import removal, rulesets
from backends.kernel.xtables.tools import Variant
from backends.kube_proxy import ipvs_leftovers
from kproxy.core.addresses import Family


def clean_up(family: Family, shared: SharedLink) -> int:
    """Remove our rules, virtual servers, addresses and sets; return how many objects.

    Virtual servers that kube-proxy uses as well stay: it has come back, and their connections are
    its now. Settings of the node stay too. Raises BackendError.
    """
    removed = rulesets.in_both(lambda variant: clean_up_variant(family, variant))
    if is_here(family):
        removed += _remove_servers(family)
    elif shared.find() is None:  # the families share it, so sets may have gone before it
        return removed
    link = ServiceLink(family, shared)
    try:
        removed += link.clean_up()
    finally:
        link.close()
    return removed + Sets(family).clean_up()


def clean_up_variant(family: Family, variant: Variant) -> int:
    """Remove our jumps and chains from one variant; return how many. Raises BackendError."""
    with removal.opened(family, variant, OURS) as tables:
        return sum(removal.remove(family, variant, table, chains) for table, chains in tables)


def is_here(family: Family) -> bool:
    """Say whether there is something of ours: the sets come first and go last.

    Raises BackendError.
    """
    return bool(Sets(family).names())


def own_servers(kernel: VirtualServers, family: Family, sets: Sets) -> Iterator[Server]:
    """Yield our virtual servers of a family, whose sets were observed. May raise BackendError."""
    for server, _ in kernel.servers():
        if server.family is family and sets.owns(raw_server(server)):
            yield server


def _remove_servers(family: Family) -> int:
    sets = Sets(family)
    sets.observe()
    kube_proxys = ipvs_leftovers.made_by_kube_proxy(family)
    with VirtualServers("removing our virtual servers") as kernel:
        unwanted = [each for each in own_servers(kernel, family, sets) if not kube_proxys(each)]
        kernel.delete_servers(unwanted)
    return len(unwanted)
