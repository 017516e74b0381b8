"""The configuration that changes what a packet deserves."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from kproxy.core.addresses import Network


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


class LocalhostNodePorts(enum.Enum):
    """When NodePorts answer on the loopback addresses of a family."""

    NEVER = "never"
    LISTED = "where nodePortAddresses names a network of loopback"
    COVERED = "also where nodePortAddresses holds everywhere"


class ListensAt(NamedTuple):
    """A server of this proxy: the field that configures it, and its address, canonical."""

    field: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What the compiler needs of the configuration, its defaults resolved.

    `external_ips` False leaves the externalIPs of Services unserved.
    `bind_address` takes the place of the Node object's address of its family; canonical, "" if
    there is none.
    `listens_at`: where this proxy's own servers listen.
    """

    node_name: str
    detect_local: DetectLocalMode = DetectLocalMode.CLUSTER_CIDR
    cluster_cidrs: tuple[Network, ...] = ()
    bridge_interface: str = ""
    interface_name_prefix: str = ""
    masquerade_all: bool = False
    node_port_addresses: tuple[Network | NodePortKeyword, ...] = (NodePortKeyword.ALL,)
    localhost_ipv4: LocalhostNodePorts = LocalhostNodePorts.COVERED
    localhost_ipv6: LocalhostNodePorts = LocalhostNodePorts.NEVER
    external_ips: bool = True
    bind_address: str = ""
    listens_at: tuple[ListensAt, ...] = ()
