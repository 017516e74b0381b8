"""How one family is doing, for readiness, health and metrics."""

from __future__ import annotations

from dataclasses import dataclass

from kproxy.core.addresses import Family


@dataclass(frozen=True, slots=True)
class FamilyStatus:
    """One family's state at one moment. Times are seconds of the event loop's clock.

    - `queued_at`: when the last change came; None before the first.
    - `applied_at`: when the kernel last was known to hold all that had been asked of it.
    - `behind_since`: when the oldest change came that the kernel lacks; None if it lacks none.
    - `failures`: refusals in a row; `error` is the last of them, empty if there is none.
    """

    family: Family
    queued_at: float | None = None
    applied_at: float | None = None
    behind_since: float | None = None
    failures: int = 0
    error: str = ""

    def healthy(self, now: float, patience_s: float) -> bool:
        """Say whether no change has waited longer than `patience_s` (reference 1.4)."""
        return self.behind_since is None or now - self.behind_since <= patience_s
