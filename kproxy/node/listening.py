"""Which programs of this node listen at which port, as the kernel tells it below /proc/net."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from kproxy.core.addresses import canonical_address, endpoint_text
from kproxy.core.objects import Protocol
from kproxy.core.occupied import Occupant

_PROC = Path("/proc/self/net")
_FILES = (
    ("tcp", Protocol.TCP),
    ("tcp6", Protocol.TCP),
    ("udp", Protocol.UDP),
    ("udp6", Protocol.UDP),
)
_LISTENS = {Protocol.TCP: "0A", Protocol.UDP: "07"}  # TCP_LISTEN; of UDP, not connected
_MOST_SOCKETS = 65_536  # of one file
_EVERY_ADDRESS = ("0.0.0.0", "::")


def listening(proc: Path = _PROC) -> frozenset[Occupant]:
    """Return what listens in this network namespace. Blocks while it reads."""
    found: set[Occupant] = set()
    for name, protocol in _FILES:
        try:
            with (proc / name).open(encoding="ascii") as table:
                found.update(_occupants(table, protocol))
        except OSError:  # a kernel without IPv6 lacks two of them; who listens there is unknown
            continue
    return frozenset(found)


def _occupants(table: Iterator[str], protocol: Protocol) -> Iterator[Occupant]:
    """Yield the sockets that listen. The kernel lists those of TCP before all others."""
    next(table, None)
    for line in islice(table, _MOST_SOCKETS):
        _, local, remote, state, *_ = line.split(maxsplit=4)
        if state != _LISTENS[protocol] or not remote.endswith(":0000"):
            if protocol is Protocol.TCP:
                return
            continue
        written, _, port = local.partition(":")
        yield _occupant(_address(written), protocol, int(port, 16))


def _occupant(address: str, protocol: Protocol, port: int) -> Occupant:
    if address in _EVERY_ADDRESS:
        return Occupant("", protocol, port, f"what listens at port {port} of this node")
    return Occupant(address, protocol, port, f"what listens at {endpoint_text(address, port)}")


def _address(written: str) -> str:
    """Return an address that is written as numbers of 32 bits, their bytes in the host's order."""
    words = [int(written[i : i + 8], 16) for i in range(0, len(written), 8)]
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    if len(packed) == 4:
        return ".".join(map(str, packed))
    groups = [f"{packed[i]:02x}{packed[i + 1]:02x}" for i in range(0, 16, 2)]
    return canonical_address(":".join(groups))
