"""Who owns a frontend that two service ports claim.

A clusterIP beats everything else, so that nobody takes another Service's address by writing it
into externalIPs. Among equals the lower key wins: the answer depends on the objects in force
alone, never on the order in which they came.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kproxy.core.objects import Protocol
from kproxy.core.table import Frontend, NodePort, ServicePortKey, Via

_VIA_ORDER = {via: order for order, via in enumerate(Via)}

FrontendId = tuple[str, Protocol, int]  # the address is "" for a NodePort
_Claim = tuple[ServicePortKey, Frontend]


class Conflict(NamedTuple):
    """A frontend that `loser` claims and does not get, because it is `winner`'s."""

    address: str  # "" for a NodePort
    protocol: str
    port: int
    winner: str
    loser: str


def _id(key: ServicePortKey, frontend: Frontend) -> FrontendId:
    address = "" if isinstance(frontend, NodePort) else frontend.address
    return address, key.protocol, frontend.port


def _order(claim: _Claim) -> tuple[bool, str, str, str, int]:
    key, frontend = claim
    via = Via.NODE_PORT if isinstance(frontend, NodePort) else frontend.via
    disputable = via is not Via.CLUSTER_IP
    return disputable, key.namespace, key.name, key.port, _VIA_ORDER[via]


class Claims:
    """All claims of one family."""

    def __init__(self) -> None:
        self._claims: dict[FrontendId, tuple[_Claim, ...]] = {}
        self._disputed: set[FrontendId] = set()
        self._conflicts: frozenset[Conflict] | None = None  # None until somebody asks

    def replace(
        self, key: ServicePortKey, old: Iterable[Frontend], new: Iterable[Frontend]
    ) -> set[ServicePortKey]:
        """Exchange one service port's claims; return all whose ownership may have changed.

        Of any number of claimants these are few: whoever owned a frontend before or owns it now.
        """
        before, after = set(old), set(new)
        touched = {key}
        for frontend in before - after:
            self._remove(key, frontend)
            touched |= self._owner(key, frontend)
        for frontend in after - before:
            touched |= self._owner(key, frontend)
            self._add(key, frontend)
        return touched

    def owned(self, key: ServicePortKey, claimed: tuple[Frontend, ...]) -> tuple[Frontend, ...]:
        """Return those of `claimed` that `key` owns; the same tuple if that is all of them."""
        owned = tuple(f for f in claimed if self._claims[_id(key, f)][0] == (key, f))
        return claimed if len(owned) == len(claimed) else owned

    def conflicts(self) -> frozenset[Conflict]:
        """Return every lost claim against another service port; the same set until one changes."""
        if self._conflicts is None:
            self._conflicts = frozenset(self._lost())
        return self._conflicts

    def _lost(self) -> Iterator[Conflict]:
        for where in self._disputed:
            winner, *losers = self._claims[where]
            address, protocol, port = where
            for loser in {key for key, _ in losers} - {winner[0]}:
                yield Conflict(address, protocol.value, port, str(winner[0]), str(loser))

    def _owner(self, key: ServicePortKey, frontend: Frontend) -> set[ServicePortKey]:
        return {owner for owner, _ in self._claims.get(_id(key, frontend), ())[:1]}

    def _add(self, key: ServicePortKey, frontend: Frontend) -> None:
        where, claim = _id(key, frontend), (key, frontend)
        claims = self._claims.get(where, ())
        place = bisect.bisect_left(claims, _order(claim), key=_order)
        self._claims[where] = (*claims[:place], claim, *claims[place:])
        if claims:
            self._disputed.add(where)
            self._conflicts = None

    def _remove(self, key: ServicePortKey, frontend: Frontend) -> None:
        where = _id(key, frontend)
        claims = self._claims[where]
        place = bisect.bisect_left(claims, _order((key, frontend)), key=_order)
        left = (*claims[:place], *claims[place + 1 :])
        if left:
            self._conflicts = None
        if len(left) < 2:
            self._disputed.discard(where)
        if left:
            self._claims[where] = left
        else:
            del self._claims[where]
