"""A variant of iptables that an earlier run used: it stays for open connections alone."""

from __future__ import annotations

from backends.iptables import cleanup
from backends.iptables.driver import localnet
from backends.iptables.driver.ours import OURS
from backends.kernel.translated import Departing
from backends.kernel.xtables import removal
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family

# They decide about no new connection. Without the first two a packet that is on its way through
# the hooks would miss its masquerade, and the kernel would stop tracking, and so translating, if
# nobody else's rules needed it. Without the others what the table's policy or a martian guard
# refuses would be lost to open connections, or open to strangers.
_FOR_OPEN_CONNECTIONS = frozenset(
    {"KPROXY-POSTROUTING", "KPROXY-MASQUERADE", "KPROXY-FORWARD", localnet.GUARD_CHAIN}
)


class FormerVariant:
    """One family's rules in a variant that this process does not use."""

    def __init__(self, family: Family, variant: Variant) -> None:
        self._family = family
        self._variant = variant
        self._departing: Departing | None = None

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"iptables {self._variant.value}"

    def withdraw(self) -> bool:
        """Take no new connections; say whether no open one needs the rules any more.

        The work after the first call is bounded, whatever the kernel tracks. Raises BackendError.
        """
        if self._departing is None:
            kept = _FOR_OPEN_CONNECTIONS
            if not removal.reduce(self._family, self._variant, OURS, kept=kept):
                return True
            self._departing = Departing(self._family)
        return self._departing.ended()

    def clean_up(self) -> int:
        """Remove what is left; return how many kernel objects. Raises BackendError."""
        return cleanup.clean_up_variant(self._family, self._variant)
