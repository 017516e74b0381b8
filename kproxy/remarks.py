"""What is said of a forwarding table in words, by the log and by the command line."""

from __future__ import annotations

from collections.abc import Iterable

from kproxy.core.addresses import endpoint_text
from kproxy.core.claims import Conflict
from kproxy.core.table import ForwardingTable


def conflict_line(conflict: Conflict) -> str:
    """Return who gets a frontend that two Services claim."""
    if conflict.address:
        frontend = f"{endpoint_text(conflict.address, conflict.port)} {conflict.protocol}"
    else:
        frontend = f"NodePort {conflict.port} {conflict.protocol}"
    return f"{frontend} is claimed twice: {conflict.winner} has it, {conflict.loser} does not"


def counts_line(tables: Iterable[ForwardingTable]) -> str:
    """Return how much some tables hold."""
    entries = [entry for table in tables for entry in table.service_ports.values()]
    services = len({entry.key.service for entry in entries})
    keys = len({entry.key for entry in entries})
    endpoints = len({(t.address, t.port) for e in entries for t in e.targets + e.local_targets})
    return f"{services} Services with {keys} ports and {endpoints} endpoints"
