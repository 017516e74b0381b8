"""The configuration that changes what a packet deserves."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from kproxy.core.addresses import Network


class Mode(enum.Enum):
    """A data path, by its configuration name. Only defaults depend on it, never a decision."""

    IPTABLES = "iptables"
    IPVS = "ipvs"
    NFTABLES = "nftables"
    EBPF = "ebpf"


class DetectLocalMode(enum.Enum):
    """How traffic of this node's own pods is recognised (reference 1.4)."""

    CLUSTER_CIDR = "ClusterCIDR"
    NODE_CIDR = "NodeCIDR"
    BRIDGE_INTERFACE = "BridgeInterface"
    INTERFACE_NAME_PREFIX = "InterfaceNamePrefix"


class NodePortKeyword(enum.Enum):
    """The words that `nodePortAddresses` takes besides CIDRs."""

    PRIMARY = "primary"
    LOCALHOST = "localhost"
    ALL = "all"


class ListensAt(NamedTuple):
    """A server of this proxy: the field that configures it, and its address, canonical."""

    field: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What the compiler needs of the configuration.

    `node_port_addresses` None means that it is unset and the mode's default holds.
    `localhost_node_ports` is the iptables section's switch (`iptables.localhostNodePorts`).
    `external_ips` False leaves the externalIPs of Services unserved.
    `bind_address` takes the place of the Node object's address of its family; canonical, "" if
    there is none.
    `listens_at`: where this proxy's own servers listen.
    """

    node_name: str
    mode: Mode = Mode.IPTABLES
    detect_local: DetectLocalMode = DetectLocalMode.CLUSTER_CIDR
    cluster_cidrs: tuple[Network, ...] = ()
    bridge_interface: str = ""
    interface_name_prefix: str = ""
    masquerade_all: bool = False
    node_port_addresses: tuple[Network | NodePortKeyword, ...] | None = None
    localhost_node_ports: bool = True
    external_ips: bool = True
    bind_address: str = ""
    listens_at: tuple[ListensAt, ...] = ()
