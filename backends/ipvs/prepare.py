"""What a privileged process leaves behind for one that has CAP_NET_ADMIN alone.

In a container without privileges /proc/sys cannot be written, and that of ipvs is not even there
before the kernel has loaded its module.
"""

from __future__ import annotations

from backends.ipvs.driver import schedulers
from backends.ipvs.driver.settings import NodeSettings
from backends.ipvs.options import IpvsOptions
from kproxy.core.addresses import Family


def prepare(family: Family, options: IpvsOptions) -> int:
    """Load ipvs and put the settings in place; return how many of these were missing.

    Rules and virtual servers of an earlier run stay as they are. Raises BackendError.
    """
    schedulers.require(options.scheduler)
    settings = NodeSettings(family, options)
    missing = settings.render().keys() - settings.observe().keys()
    settings.put(missing)
    settings.settle()
    return len(missing)
