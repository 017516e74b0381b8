"""What the log says of one family: each thing once, not at every retry."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from kproxy.core.addresses import Family
from kproxy.core.table import ServicePortKey
from kproxy.run.loop.worker import NotTended, Refused, Tended, Written

log = logging.getLogger(__name__)

_NAMED = 5  # so many kernel objects are named in one line
_MANY = 100  # a write of so many objects is worth a line of its own


class Report:
    """Turns outcomes into log lines."""

    def __init__(self, family: Family) -> None:
        self._family = family.value
        self._refusals = 0
        self._leftovers = 0
        self._untended = 0
        self._first = True

    def written(self, outcome: Written, seconds: float) -> None:
        """Say what was written and repaired, and that it works again if it did not before."""
        applied = outcome.applied
        level = logging.INFO if self._first or applied.written >= _MANY else logging.DEBUG
        if applied.written or self._first:
            log.log(
                level,
                "%s: wrote %d kernel objects in %.2f s",
                self._family,
                applied.written,
                seconds,
            )
        if applied.repaired:
            log.warning(
                "%s: repaired %d kernel objects that something else had changed: %s",
                self._family,
                len(applied.repaired),
                _some(applied.repaired),
            )
        if outcome.stale_flows is not None and outcome.stale_flows.removed:
            log.debug("%s: removed %d stale UDP flows", self._family, outcome.stale_flows.removed)
        if self._refusals:
            log.info("%s: works again after %d refusals", self._family, self._refusals)
        self._first = False
        self._refusals = 0
        self._clear_up(outcome)

    def refused(self, outcome: Refused, retry_s: float) -> None:
        """Say that the kernel refused: at the first time, the second, the fourth and so on."""
        self._refusals += 1
        if _is_power_of_two(self._refusals):
            log.error(
                "%s: the kernel refused (%d in a row), trying again in %.1f s: %s",
                self._family,
                self._refusals,
                retry_s,
                outcome.error,
            )

    def tended(self, outcome: Tended | NotTended) -> None:
        """Say that the data path cannot be tended, and when it can again."""
        if isinstance(outcome, NotTended):
            self._untended += 1
            if _is_power_of_two(self._untended):
                log.warning(
                    "%s: the rules are in place, but: %s; trying again",
                    self._family,
                    outcome.error,
                )
        elif self._untended:
            log.info("%s: done after %d failures beside the rules", self._family, self._untended)
            self._untended = 0

    def unheld(
        self, before: Mapping[ServicePortKey, str], now: Mapping[ServicePortKey, str]
    ) -> None:
        """Say which service ports are not in force as they are wished any more, and which are."""
        by_reason: dict[str, list[str]] = {}
        for key, reason in now.items():
            if key not in before:
                by_reason.setdefault(reason, []).append(str(key))
        for reason, keys in by_reason.items():
            log.error(
                "%s: not in force as asked, while all else is: %s: %s; trying again from time "
                "to time, where that may help",
                self._family,
                _some(tuple(sorted(keys))),
                reason,
            )
        again = tuple(sorted(str(key) for key in before.keys() - now.keys()))
        if again:
            log.info("%s: nothing is left out any more of: %s", self._family, _some(again))

    def stuck(self, seconds: float) -> None:
        """Say that a call into the kernel does not come back."""
        log.error(
            "%s: the kernel has not answered for %.0f s; no rule can change until it does",
            self._family,
            seconds,
        )

    def _clear_up(self, outcome: Written) -> None:
        if not outcome.leftovers:
            self._leftovers = 0
            return
        self._leftovers += 1
        if _is_power_of_two(self._leftovers):
            errors = "; ".join(str(error) for error in outcome.leftovers)
            log.warning("%s: the rules are in place, but: %s", self._family, errors)


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


def _some(names: tuple[str, ...]) -> str:
    named = ", ".join(names[:_NAMED])
    return f"{named} and {len(names) - _NAMED} more" if len(names) > _NAMED else named
