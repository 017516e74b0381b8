"""Keeps one data path equal to the last table that it was given."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from kproxy.core.flows import UdpFlows
from kproxy.core.image import Changes, Key, diff
from kproxy.core.table import ServicePortKey, TableChanges
from kproxy.ports.data_path import Backend, BackendError
from kproxy.run.loop.wishes import ServicePorts, Wishes, isolate


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
        self._wishes = Wishes()
        self._want: dict[Key, bytes] = {}
        self._touched: dict[Key, bytes | None] = {}  # since the last write, with what was before
        self._belief = _Belief.NOTHING
        self._refusals = 0  # in a row
        self.step = Step.READ
        """The last step that was begun: after a BackendError, the one that failed."""

    def apply(self, changes: TableChanges, *, retry: bool = False) -> Applied:
        """Make the kernel match the table after `changes`; write only what differs.

        A trusted kernel costs the work of the change; else everything is read and compared.
        Raises BackendError. The wish is kept then: the next apply reads everything and finishes,
        or finds out which service ports are refused and leaves those as they were. With `retry`
        these are tried again.
        """
        self._udp_flows.apply(changes)
        self._render(self._wishes.take(changes))
        applied = self._write_or_isolate()
        if retry:
            applied = replace(applied, written=applied.written + self._retry())
        if applied.repaired:
            self._udp_flows.doubt()
        return applied

    @property
    def unheld(self) -> Mapping[ServicePortKey, str]:
        """Which service ports are not in force as they are wished, and why; all others are."""
        return {**self._backend.unheld(), **self._wishes.reasons()}

    def _render(self, changes: TableChanges) -> bool:
        """Let the wanted image follow; say whether it differs."""
        differs = False
        trusting = self._belief is not _Belief.NOTHING
        for key, value in self._backend.render(changes).items():
            before = self._want.get(key)
            differs = differs or value != before
            if trusting:
                self._touched.setdefault(key, before)
            if value is None:
                self._want.pop(key, None)
            else:
                self._want[key] = value
        return differs

    def _write(self) -> Applied:
        """Write what the kernel lacks of the wanted image. Raises BackendError."""
        belief = self._belief
        observed = belief is not _Belief.TRUSTED
        self._belief = _Belief.NOTHING  # a write that fails half-way leaves us not knowing
        if observed:
            self.step = Step.READ
            todo = diff(self._backend.observe(), self._want)
            self.step = Step.WRITE_ALL
        else:
            self.step = Step.WRITE_CHANGE
            before = {key: value for key, value in self._touched.items() if value is not None}
            todo = diff(before, self._want, among=self._touched)
        touched, self._touched = self._touched, {}
        if todo:
            self._backend.commit(todo)
        self._belief = _Belief.TRUSTED
        repaired: tuple[str, ...] = ()
        if belief is _Belief.DOUBTED:
            foreign = (todo.put.keys() | todo.drop) - touched.keys()
            repaired = tuple(sorted(map(self._backend.describe, foreign)))
        return Applied(written=len(todo), repaired=repaired, observed=observed)

    def _write_or_isolate(self) -> Applied:
        """Write; if the kernel goes on refusing, find out what, and write the rest.

        The first refusal is raised, as it may be one of the moment, and so are most of those that
        no service port explains.
        """
        try:
            applied = self._write()
        except BackendError as refusal:
            if self.step is Step.READ:
                raise
            self._refusals += 1
            if self._refusals == 1 or self._refusals & (self._refusals - 1):
                raise
            applied = self._isolate(refusal)
        self._refusals = 0
        self._wishes.accepted()
        return applied

    def _isolate(self, refusal: BackendError, *, proven: bool = False) -> Applied:
        """Write all but the service ports that the kernel refuses.

        Raises `refusal` if they are not what it refuses, and if it does not take anything: that
        would be no matter of theirs, unless it was `proven` before. Then all is as wished again.
        """
        if self._render(TableChanges(self._backend.family)):  # the data path knows a way around
            with suppress(BackendError):
                return self._write()
        suspects = self._wishes.suspects(self._owners() if self._wishes.begins else ())
        fallbacks = self._wishes.fallbacks(suspects)
        written = 0

        def write() -> None:
            nonlocal written
            written += self._write().written

        refused: Mapping[ServicePortKey, str] = {}
        try:
            self._render_ports(fallbacks)
            write()
            taken = bool(written) or proven or self._takes_anything(suspects)
            if taken or len(suspects) > 1:
                refused = isolate(suspects, fallbacks, render=self._render_ports, write=write)
        except BackendError:
            taken, written = False, 0
        if not taken and not written:
            self._render_ports(suspects)
            self._belief = _Belief.NOTHING
            raise refusal
        self._wishes.give_up(refused, fallbacks)
        return Applied(written=written, repaired=(), observed=True)

    def _takes_anything(self, suspects: Collection[ServicePortKey]) -> bool:
        """Write what another service port has, as it is already, to see if that is taken.

        All of it, because some objects may have ways of their own into the kernel, which prove
        nothing. False if there is no other one. Raises BackendError if it is refused.
        """
        other: ServicePortKey | None = None
        objects: dict[Key, bytes] = {}
        for key, value in self._want.items():
            owners = self._backend.owners([key])
            if other is None:
                other = next((owner for owner in owners if owner not in suspects), None)
            if other in owners:
                objects[key] = value
        if objects:
            self._backend.commit(Changes(objects, frozenset()))
        return bool(objects)

    def _owners(self) -> Collection[ServicePortKey]:
        """Return whose objects the kernel lacks, or has otherwise."""
        todo = diff(self._backend.observe(), self._want)
        return self._backend.owners([*todo.put, *todo.drop])

    def _render_ports(self, service_ports: ServicePorts) -> None:
        self._render(TableChanges(self._backend.family, service_ports=service_ports))

    def _retry(self) -> int:
        """Try again what is not in force; return how much was written. Raises BackendError."""
        with suppress(BackendError):  # no matter of theirs; `settle` tells it after the write
            self._backend.settle()
        self._render_ports(self._wishes.reopen())
        try:
            applied = self._write()
        except BackendError as refusal:
            applied = self._isolate(refusal, proven=True)
        self._wishes.accepted()
        return applied.written

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
