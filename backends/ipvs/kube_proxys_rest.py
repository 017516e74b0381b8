"""What open connections need of kube-proxy, after this data path took over its virtual servers."""

from __future__ import annotations

import contextlib

from backends.ipvs.driver.link import LINK
from backends.kernel.host_routes import routes_on
from backends.kernel.links import link_named
from backends.kernel.translated import Departing, served_elsewhere, to_any_of
from backends.kube_proxy import ipvs_leftovers, takeover
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError


class KubeProxysForwarding:
    """One family's chain that lets through FORWARD what is open, as its policy may be DROP.

    Ours does so by a label, which the kernel has no room for in a connection of before our rules.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self._departing: Departing | None = None

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"kube-proxy's chain {takeover.FORWARDING}"

    def withdraw(self) -> bool:
        """Say whether no connection of before our rules is left.

        The work after the first call is bounded, whatever the kernel tracks. Raises BackendError.
        """
        if self._departing is None:
            if not takeover.lets_through(self._family):
                return True
            self._departing = Departing(self._family, served_elsewhere)
        return self._departing.ended()

    def clean_up(self) -> int:
        """Remove it; return how many kernel objects. Raises BackendError."""
        return takeover.remove_rules(self._family)


class KubeProxysLink:
    """One family's addresses on it: they are the node's own, as they are not with us.

    What came to an external address before our rules is not steered to our link: so the address
    stays where it was until those connections have ended.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self._departing: Departing | None = None

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"kube-proxy's link {ipvs_leftovers.LINK}"

    def withdraw(self) -> bool:
        """Keep only what open connections need, if any; say whether they need nothing.

        The work after the first call is bounded, whatever the kernel tracks. Raises BackendError.
        """
        if self._departing is None:
            needed = ipvs_leftovers.link_addresses(self._family) - self._own_addresses()
            ipvs_leftovers.remove_addresses(self._family, but=needed)
            if not needed:
                return True
            self._departing = Departing(self._family, to_any_of(needed))
        return self._departing.ended()

    def clean_up(self) -> int:
        """Remove the addresses, and the link behind the last one; return how many objects.

        Raises BackendError.
        """
        removed = ipvs_leftovers.remove_addresses(self._family)
        if not any(map(ipvs_leftovers.link_addresses, Family)):
            with contextlib.suppress(BackendError):  # the other family may have done it just now
                removed += ipvs_leftovers.remove_link()
        return removed

    def _own_addresses(self) -> frozenset[bytes]:
        """Return what is on our link for all packets."""
        link = link_named(LINK)
        if link is None:
            return frozenset()
        return frozenset(each.address for each in routes_on(self._family, link.device))
