"""What an entry is, in words. Pure."""

from __future__ import annotations

import ipaddress

from backends.ebpf.render import layout as abi
from backends.ebpf.render.layout import Layout, TableMap
from kproxy.core.addresses import endpoint_text

_PROTOCOL = {number: protocol.value for protocol, number in abi.PROTOCOL_NUMBER.items()}


def describe(layout: Layout, key: bytes) -> str:
    """Return what the entry of an image key is."""
    raw = key[1:]
    match TableMap(key[0]):
        case TableMap.FRONTENDS:
            return _frontend(layout, *layout.frontend_key.unpack(raw))
        case TableMap.CHUNKS:
            digest, number = layout.chunk_key.unpack(raw)
            first = number * abi.TARGETS_PER_CHUNK
            last = first + abi.TARGETS_PER_CHUNK - 1
            return f"endpoints {first} to {last} of list {digest.hex()}"
        case TableMap.MEMBERS:
            digest, address, port = layout.member_key.unpack(raw)
            return f"place of {_endpoint(address, port)} in list {digest.hex()}"
        case TableMap.SOURCE_RANGES:
            bits, service, address = layout.source_key.unpack(raw)
            length = bits - 8 * len(service)
            return f"source range {address_text(address)}/{length} of service {service.hex()}"
        case TableMap.UNCLAIMED_NETWORKS:
            return f"unclaimed addresses in {_network(layout, raw)}"
        case TableMap.NODE_PORT_NETWORKS:
            return f"nodePorts at {_network(layout, raw)}"
        case TableMap.TABLE_RULES:
            return "node rules"


def address_text(address: bytes) -> str:
    """Return an address in canonical form."""
    return str(ipaddress.ip_address(address))


def _frontend(layout: Layout, address: bytes, port: bytes, protocol: int) -> str:
    if protocol == abi.ANY_PROTOCOL:
        return f"other ports of clusterIP {address_text(address)}"
    name = _PROTOCOL.get(protocol, f"protocol {protocol}")
    if address == layout.unspecified:
        return f"nodePort {int.from_bytes(port, 'big')} {name}"
    return f"frontend {_endpoint(address, port)} {name}"


def _endpoint(address: bytes, port: bytes) -> str:
    return endpoint_text(address_text(address), int.from_bytes(port, "big"))


def _network(layout: Layout, raw: bytes) -> str:
    bits, address = layout.network_key.unpack(raw)
    return f"{address_text(address)}/{bits}"
