"""Options of the ipvs data path, as the configuration's defaults make them."""

from __future__ import annotations

from backends.ipvs.options import DEFAULT_SCHEDULER, IpvsOptions
from backends.kernel.virtual_servers import Timeouts

PLAIN = IpvsOptions(
    scheduler=DEFAULT_SCHEDULER,
    strict_arp=False,
    timeouts=Timeouts(0, 0, 0),
    excluded=(),
    variant=None,
    take_over=False,
)
