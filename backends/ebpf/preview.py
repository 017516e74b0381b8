"""What would be programmed for a table, as text for a person. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from backends.ebpf.render import layout as abi
from backends.ebpf.render.describe import address_text
from backends.ebpf.render.layout import Layout, TableMap, layout
from backends.ebpf.render.renderer import Renderer
from kproxy.core.addresses import endpoint_text
from kproxy.core.image import Key
from kproxy.core.table import ForwardingTable

_ORIGINS = ("outside", "pods", "the node")


def preview(table: ForwardingTable, sizes: Mapping[str, int]) -> str:
    """Return the entries of all maps that the table alone decides, each map with its share.

    Lists of endpoints have digests for names. Entries that follow the node's devices and addresses
    are not among them.
    """
    renderer = Renderer(table.family, sizes)
    entries: dict[TableMap, dict[Key, bytes]] = {each: {} for each in TableMap}
    for key, value in renderer.update(table.everything()).items():
        if isinstance(key, bytes) and value is not None:
            entries[TableMap(key[0])][key] = value
    lines: list[str] = []
    for each, found in entries.items():
        lines.append(f"map {each.map_name}: {len(found)} entries")
        lines += _listed(layout(table.family), renderer, each, found)
    lines += [f"left out: {key}: {why}" for key, why in renderer.unheld().items()]
    return "".join(f"{line}\n" for line in lines)


def _listed(
    layout: Layout, renderer: Renderer, of: TableMap, found: Mapping[Key, bytes]
) -> Iterator[str]:
    for key, value in sorted(found.items()):
        owners = renderer.owners([key]) if of is TableMap.FRONTENDS else ()
        told = ", ".join([*map(str, owners), *_told(layout, of, value)])
        yield f"  {renderer.describe(key)}: {told}"


def _told(layout: Layout, of: TableMap, value: bytes) -> Iterable[str]:
    match of:
        case TableMap.FRONTENDS:
            return _frontend(layout, value)
        case TableMap.CHUNKS:
            return _targets(layout, value)
        case TableMap.MEMBERS:
            return [str(*layout.member.unpack(value))]
        case TableMap.UNCLAIMED_NETWORKS:
            return [abi.Unclaimed(value[0]).name.lower()]
        case TableMap.TABLE_RULES:
            network, mask, local_pods = layout.rules.unpack(value)
            by = abi.LocalPodsBy(local_pods)
            if by is abi.LocalPodsBy.NETWORK:
                return [f"pods by network {address_text(network)} mask {address_text(mask)}"]
            return [f"pods by {by.name.lower()}"]
        case TableMap.SOURCE_RANGES | TableMap.NODE_PORT_NETWORKS:
            return ["admitted" if value[0] else "not admitted"]


def _frontend(layout: Layout, value: bytes) -> Iterator[str]:
    _, digest, by_origin, affinity_s, _, flags = layout.frontend.unpack(value)
    if digest != abi.NO_DIGEST:
        yield f"list {digest.hex()}"
    size = layout.decision.size
    for number, origin in enumerate(_ORIGINS):
        decision = layout.decision.unpack(by_origin[number * size : (number + 1) * size])
        yield f"{origin} {_decision(*decision)}"
    if affinity_s:
        yield f"affinity {affinity_s} s"
    if flags & abi.FRONTEND_SOURCES:
        yield "admitted sources only"


def _decision(base: int, count: int, use: int, masquerade: int) -> str:
    if abi.Use(use) is not abi.Use.FORWARD:
        return abi.Use(use).name.lower()
    return f"to {base}..{base + count - 1}{' masqueraded' if masquerade else ''}"


def _targets(layout: Layout, value: bytes) -> Iterator[str]:
    for at in range(0, len(value), layout.target.size):
        address, port, local = layout.target.unpack(value[at : at + layout.target.size])
        if any(port):
            where = endpoint_text(address_text(address), int.from_bytes(port, "big"))
            yield f"{where}{' (local)' if local else ''}"
