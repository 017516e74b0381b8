"""What a stranger may do to the ebpf data path of a node, whatever it attaches where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backends.ebpf.driver import loader
from backends.ebpf.driver.sides import Side
from backends.ebpf.render.layout import TableMap
from backends.kernel import traffic_control
from backends.kernel.bpf import links
from backends.kernel.bpf.maps import Map
from kproxy.core.addresses import Family
from tests.support.ebpf.devices import PARENTS, TYPES
from tests.support.ebpf.on_node import pins_of, stages
from tests.support.node.node import Node


def take_off_devices(node: Node, family: Family) -> None:
    """Let no program of ours meet a packet, whichever family it is for."""
    del family
    for path in pins_of(node.place, "link"):
        with links.pinned(path) as link:
            if link.info().attach_type in TYPES.values():
                link.detach()
    with node.network.node.entered():
        for device in traffic_control.devices_with_clsact():
            for side in Side:
                for found in traffic_control.filters(device, PARENTS[side]):
                    if found.name.startswith("kproxy"):
                        traffic_control.remove_filter(device, PARENTS[side], found)


def take_off_sockets(node: Node, family: Family) -> None:
    """Let no program of ours meet a call, whichever family it is for."""
    del family
    for path in pins_of(node.place, "link"):
        with links.pinned(path) as link:
            if link.info().attach_type not in TYPES.values():
                link.detach()


def unpin_links(node: Node, family: Family) -> None:
    """Remove the names of links: what is attached by them goes too, after a moment."""
    for path in pins_of(node.place, "link"):
        if _is_of(path, family):
            path.unlink()


def unpin_the_rest(node: Node, family: Family) -> None:
    """Remove the names of maps and programs, which run on."""
    for kind in ("map", "prog"):
        for path in pins_of(node.place, kind):
            if _is_of(path, family):
                path.unlink()


def empty_stages(node: Node, family: Family) -> None:
    """Let programs find none of those that they call."""
    for path, found in stages(node.place):
        if _is_of(path, family):
            for key, _ in list(found.items()):
                assert found.delete(key)


def edit_entries(node: Node, family: Family) -> None:
    """Exchange two frontends, add one that no Service has, and remove all lists of endpoints."""
    with _map(node, family, TableMap.FRONTENDS) as frontends:
        (one, first), (other, second), *_ = frontends.items()
        frontends.update_many({one: second, other: first, bytes([one[0] ^ 0x80]) + one[1:]: first})
    with _map(node, family, TableMap.CHUNKS) as chunks:
        assert chunks.delete_many(list(chunks.keys()))


def let_nothing_through(node: Node, family: Family) -> None:
    """Reload a firewall without the rule that lets through what programs translated."""
    node.iptables(family, "-F FORWARD")


MEDDLING: dict[str, Callable[[Node, Family], None]] = {
    "programs taken off devices": take_off_devices,
    "programs taken off sockets": take_off_sockets,
    "links unpinned": unpin_links,
    "maps and programs unpinned": unpin_the_rest,
    "stages emptied": empty_stages,
    "entries edited": edit_entries,
    "nothing let through": let_nothing_through,
}


def _is_of(path: Path, family: Family) -> bool:
    """Say whether a pin is of a family, or of both."""
    others = {each.name.lower() for each in Family if each is not family}
    return others.isdisjoint(path.parts)


def _map(node: Node, family: Family, which: TableMap) -> Map:
    found = loader.published_map(node.place.bpffs, family, which.map_name)
    assert found is not None
    return found
