"""How one family is doing, for readiness, health and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kproxy.core.addresses import Family
from kproxy.core.table import ServicePortKey


@dataclass(frozen=True, slots=True)
class FamilyStatus:
    """One family's state at one moment. Times are seconds of the event loop's clock.

    - `queued_at`: when the last change came; None before the first.
    - `applied_at`: when the kernel last was known to hold all that had been asked of it.
    - `behind_since`: when the oldest change came that the kernel lacks; None if it lacks none.
    - `unheld`: service ports that are not in force as they are wished, each with the reason.
    - `failures`: refusals in a row; `error` is the last of them, empty if there is none.
    """

    family: Family
    queued_at: float | None = None
    applied_at: float | None = None
    behind_since: float | None = None
    failures: int = 0
    error: str = ""
    unheld: Mapping[ServicePortKey, str] = field(default_factory=dict)

    def healthy(self, now: float, patience_s: float) -> bool:
        """Say whether no change has waited longer than `patience_s` (reference 1.4)."""
        return self.behind_since is None or now - self.behind_since <= patience_s
