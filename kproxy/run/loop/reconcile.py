"""Keeps one data path equal to the last table that it was given."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from dataclasses import dataclass

from kproxy.core.flows import UdpFlows
from kproxy.core.image import Key, diff
from kproxy.core.table import TableChanges
from kproxy.ports.data_path import Backend


class _Belief(enum.Enum):
    """What we may assume about the kernel."""

    NOTHING = "we never wrote, or the last write failed"
    DOUBTED = "our last write succeeded, but others may have written since"
    TRUSTED = "it holds what we want"


class Step(enum.Enum):
    """What an apply does with the kernel."""

    READ = "reading back all that is ours"
    WRITE_ALL = "writing what differs, after reading"
    WRITE_CHANGE = "writing the change alone"


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did.

    `repaired` describes what others had changed. `observed` says that everything was read first.
    """

    written: int
    repaired: tuple[str, ...]
    observed: bool


class Reconciler:
    """Keeps one family of one data path equal to the sum of all table changes.

    What the kernel has needs no copy of its own: while it is trusted, it is what we want.
    `local_addresses` returns the node's addresses of this family, canonical, as they are now.
    """

    def __init__(self, backend: Backend, local_addresses: Callable[[], Collection[str]]) -> None:
        self._backend = backend
        self._local_addresses = local_addresses
        self._udp_flows = UdpFlows()
        self._want: dict[Key, bytes] = {}
        self._belief = _Belief.NOTHING
        self.step = Step.READ
        """The last step that was begun: after a BackendError, the one that failed."""

    def apply(self, changes: TableChanges) -> Applied:
        """Make the kernel match the table after `changes`; write only what differs.

        A trusted kernel costs the work of the change; else everything is read and compared.
        Raises BackendError. The wish is kept then: the next apply reads everything and finishes.
        """
        self._udp_flows.apply(changes)
        patch = self._backend.render(changes)
        before = {key: self._want[key] for key in patch if key in self._want}
        for key, value in patch.items():
            if value is None:
                self._want.pop(key, None)
            else:
                self._want[key] = value

        belief = self._belief
        observed = belief is not _Belief.TRUSTED
        self._belief = _Belief.NOTHING  # a write that fails half-way leaves us not knowing
        if observed:
            self.step = Step.READ
            todo = diff(self._backend.observe(), self._want)
            self.step = Step.WRITE_ALL
        else:
            self.step = Step.WRITE_CHANGE
            todo = diff(before, self._want, among=patch)
        if todo:
            self._backend.commit(todo)
        self._belief = _Belief.TRUSTED
        repaired: tuple[str, ...] = ()
        if belief is _Belief.DOUBTED:
            foreign = (todo.put.keys() | todo.drop) - patch.keys()
            repaired = tuple(sorted(map(self._backend.describe, foreign)))
        if repaired:
            self._udp_flows.doubt()
        return Applied(written=len(todo), repaired=repaired, observed=observed)

    def audit(self) -> Applied:
        """Read everything and repair what differs. Raises BackendError."""
        self.forget()
        return self.apply(TableChanges(self._backend.family))

    @property
    def may_have_stale_flows(self) -> bool:
        """Whether any UDP flow can have become stale since the last clean-up."""
        return self._udp_flows.needed

    def forget_stale_flows(self) -> int:
        """Remove the UDP flows that the kernel's rules would treat otherwise now; return how many.

        For after a successful apply. Raises BackendError; then they are still to be removed.
        """
        if not self.may_have_stale_flows:
            return 0
        flows = self._backend.flows(self._udp_flows.suspects)
        stale = self._udp_flows.stale(flows, self._local_addresses())
        removed = self._backend.forget_flows(stale)
        self._udp_flows.settled()
        return removed

    def settle(self) -> None:
        """Finish what a successful apply could not. Raises BackendError."""
        self._backend.settle()

    def forget(self) -> None:
        """Distrust the kernel, so that the next apply reads everything first."""
        if self._belief is _Belief.TRUSTED:
            self._belief = _Belief.DOUBTED

    def disturbed(self) -> bool:
        """Say whether others may have written since we last looked. Raises BackendError.

        False while the next apply reads everything anyway.
        """
        return self._belief is _Belief.TRUSTED and self._backend.disturbed()
