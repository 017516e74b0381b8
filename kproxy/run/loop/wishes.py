"""Each service port as it is wished and as it is in force, where the kernel refuses some."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from kproxy.core.objects import Protocol
from kproxy.core.table import ServicePort, ServicePortKey, TableChanges, Vip
from kproxy.ports.data_path import BackendError

ServicePorts = Mapping[ServicePortKey, ServicePort | None]

# So many refused writes end a search; what is left of it waits for the next one.
_MOST_REFUSALS = 64


@dataclass(frozen=True, slots=True)
class _Refused:
    """What the kernel does not take, None for a removal, and its words."""

    wish: ServicePort | None
    reason: str


class Wishes:
    """Knows, for each service port, what to go back to if the kernel refuses what is new.

    What was refused stays as it was before until `reopen`, however often its wish changes: a
    refused write costs as much as any other.
    """

    def __init__(self) -> None:
        self._in_force: dict[ServicePortKey, ServicePort] = {}
        self._pending: dict[ServicePortKey, ServicePort | None] = {}
        self._refused: dict[ServicePortKey, _Refused] = {}
        self._tried_again: set[ServicePortKey] = set()

    def take(self, changes: TableChanges) -> TableChanges:
        """Take changes in; return those that shall be written now."""
        if self._refused:
            offered = self._without_refused(changes.service_ports)
            changes = replace(changes, service_ports=offered)
        self._pending.update(changes.service_ports)
        return changes

    def accepted(self) -> None:
        """Note that all that was pending is in force."""
        for key, entry in self._pending.items():
            if entry is None:
                self._in_force.pop(key, None)
            else:
                self._in_force[key] = entry
        self._pending.clear()
        self._tried_again.clear()

    def reopen(self) -> ServicePorts:
        """Return what was refused; it is pending again."""
        wishes = {key: refused.wish for key, refused in self._refused.items()}
        self._pending.update(wishes)
        self._tried_again.update(wishes)
        self._refused.clear()
        return wishes

    @property
    def begins(self) -> bool:
        """Whether nothing is known to be in force: what the kernel has is from an earlier run."""
        return not self._in_force and not self._tried_again

    def suspects(self, owners: Collection[ServicePortKey]) -> ServicePorts:
        """Return what is pending and may be what the kernel refuses.

        As long as this `begins`, that is what `owners` has: the rest is in the kernel already, and
        must not leave it for a search.
        """
        if not self.begins:
            return dict(self._pending)
        return {key: wish for key, wish in self._pending.items() if key in owners}

    def fallbacks(self, suspects: ServicePorts) -> ServicePorts:
        """Return what each suspect was, but nothing of what now has frontends of others."""
        claimed = {claim: key for key, entry in suspects.items() for claim in _claims(key, entry)}
        return {
            key: old if all(claimed.get(claim, key) == key for claim in _claims(key, old)) else None
            for key in suspects
            for old in (self._in_force.get(key),)
        }

    def give_up(self, refused: Mapping[ServicePortKey, str], fallbacks: ServicePorts) -> None:
        """Note what the kernel refused, with the reasons: it is as before, if it was anything."""
        for key, reason in refused.items():
            self._refused[key] = _Refused(self._pending[key], reason)
            self._pending[key] = fallbacks[key]

    def reasons(self) -> dict[ServicePortKey, str]:
        """Return what is not in force as it is wished, each with the reason."""
        return {key: refused.reason for key, refused in self._refused.items()}

    def _without_refused(self, service_ports: ServicePorts) -> ServicePorts:
        offered: dict[ServicePortKey, ServicePort | None] = {}
        for key, entry in service_ports.items():
            refused = self._refused.get(key)
            if refused is not None and entry is not None:
                self._refused[key] = replace(refused, wish=entry)
            else:
                self._refused.pop(key, None)
                offered[key] = entry
        claimed = {claim for key, entry in offered.items() for claim in _claims(key, entry)}
        for key in self._refused:
            # Whoever has a frontend by now takes it from what is only there for want of better.
            if not claimed.isdisjoint(_claims(key, self._in_force.get(key))):
                offered[key] = None
        return offered


def isolate(
    suspects: ServicePorts,
    fallbacks: ServicePorts,
    *,
    render: Callable[[ServicePorts], object],
    write: Callable[[], object],
) -> dict[ServicePortKey, str]:
    """Bring all suspects into force but those that the kernel refuses; return these, with reasons.

    All are as their fallbacks at the beginning, and together they were refused. Half and half
    again: a few culprits among many cost a few dozen writes. Raises BackendError if it does not
    even take back what a refusal left half done.
    """
    refused: dict[ServicePortKey, str] = {}
    refusals = 0
    everything = list(suspects)
    groups = list(_halves(everything)) if len(everything) > 1 else [everything]
    while groups:
        group = groups.pop()
        render({key: suspects[key] for key in group})
        try:
            write()
        except BackendError as error:
            refusals += 1
            render({key: fallbacks[key] for key in group})
            if len(group) == 1 or refusals >= _MOST_REFUSALS:
                refused |= dict.fromkeys(group, str(error))
            else:
                groups += _halves(group)
    if refusals:
        write()
    return refused


def _halves(group: list[ServicePortKey]) -> Iterator[list[ServicePortKey]]:
    middle = len(group) // 2
    yield group[:middle]
    yield group[middle:]


def _claims(
    key: ServicePortKey, entry: ServicePort | None
) -> Iterator[tuple[Protocol, str | None, int]]:
    """Yield what a service port has, and no other one can have at the same time."""
    for frontend in entry.frontends if entry is not None else ():
        address = frontend.address if isinstance(frontend, Vip) else None
        yield key.protocol, address, frontend.port
