"""What an operator may choose of the ebpf data path."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_OF_SERVICES = ("frontends", "chunks", "members")
_OF_NETWORKS = ("source_ranges", "unclaimed_networks", "node_port_networks")
_NETWORKS = 65536


class SocketHooks(enum.Enum):
    """Whose connections are translated in their sockets, and not packet by packet."""

    ALL = "all"
    HOST = "host"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class EbpfOptions:
    """The options of this data path.

    - `bpffs`: the BPF file system below which everything is pinned.
    - `cache`: a folder that keeps compiled programs.
    - `cgroup`: where socket hooks are attached; None: the root of cgroup v2, wherever mounted.
    - `service_entries`, `flow_entries`, `affinity_entries`: how much the maps of a family hold.
    - `masquerade_bit`: the bit of the packet mark (0..31) by which FORWARD knows our packets.
    - `take_over`: what kube-proxy left goes once our own programs are in force.
    """

    bpffs: Path
    cache: Path
    cgroup: Path | None
    socket_hooks: SocketHooks
    service_entries: int
    flow_entries: int
    affinity_entries: int
    masquerade_bit: int
    take_over: bool

    @property
    def sizes(self) -> Mapping[str, int]:
        """How many entries maps have, by their names, where the sources' numbers do not count."""
        return {
            **dict.fromkeys(_OF_SERVICES, self.service_entries),
            **dict.fromkeys(_OF_NETWORKS, _NETWORKS),
            "table_rules": 1,
            "flows": self.flow_entries,
            "affinity": self.affinity_entries,
        }

    @property
    def mark(self) -> int:
        """What packets that the programs translated are marked with."""
        return 1 << self.masquerade_bit
