"""What an operator may choose of the ipvs data path."""

from __future__ import annotations

import math
from dataclasses import dataclass

from backends.kernel.virtual_servers import Timeouts
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Network

DEFAULT_SCHEDULER = "rr"

_LONGEST_S = 2**31 - 1  # what a message to the kernel can say; its own limit is lower


@dataclass(frozen=True, slots=True)
class IpvsOptions:
    """The options of this data path.

    - `scheduler` is the kernel's name of how a virtual server chooses among endpoints.
    - `strict_arp`: the node answers ARP requests for no address of a Service.
    - `timeouts` of all connections of ipvs, 0 for those that stay as they are.
    - `excluded`: kube-proxy's virtual servers in these networks stay where no Service has their
      place.
    - `variant` of iptables is the one to write rules in; None: the one that the node uses.
    - `take_over`: what kube-proxy left goes once our own rules are in force.
    """

    scheduler: str
    strict_arp: bool
    timeouts: Timeouts
    excluded: tuple[Network, ...]
    variant: Variant | None
    take_over: bool


def timeouts(*, tcp_s: float, tcp_fin_s: float, udp_s: float) -> Timeouts:
    """Return timeouts in the whole seconds that the kernel takes, none shorter than asked."""
    return Timeouts(*(min(math.ceil(each), _LONGEST_S) for each in (tcp_s, tcp_fin_s, udp_s)))
