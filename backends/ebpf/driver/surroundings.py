"""What of the node itself lets translated packets through: it forwards, and FORWARD accepts."""

from __future__ import annotations

import logging

from backends.ebpf.driver.forwarding import ForwardingRule
from backends.kernel import sysctl
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

log = logging.getLogger(__name__)


class Surroundings:
    """Keeps both as they must be; what is refused is said once, and tried again."""

    def __init__(self, family: Family, mark: int) -> None:
        self._family = family
        self._rule = ForwardingRule(family, mark)
        self._refused = ""

    def ensure(self) -> int:
        """Put right what is not; return how much that was. Raises BackendError."""
        turned_on = not sysctl.forwards(self._family)
        failure: BackendError | None = None
        try:
            sysctl.forward(self._family)
        except BackendError as error:
            failure = error
        made = self._rule.ensure() + turned_on
        if failure is not None:
            raise failure
        self._refused = ""
        return made

    def tend(self) -> None:
        """Put right what others changed."""
        try:
            if self._refused or not sysctl.forwards(self._family) or self._rule.missing():
                made = self.ensure()
                if made:
                    log.info(
                        "%s: others changed FORWARD or turned forwarding off: put %d right",
                        self._family.value,
                        made,
                    )
        except BackendError as error:
            if str(error) != self._refused:
                log.warning("%s: %s; trying again", self._family.value, error)
            self._refused = str(error)
