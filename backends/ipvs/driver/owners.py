"""Whose a virtual server is: ours, kube-proxy's until our rules are in force, or somebody else's.

kube-proxy's become ours where a Service has their place: they go on as they are. The others are let
alone until our rules are in force, whatever we write before, and become ours then, to leave as our
own do. In excluded networks these stay for good.
A place where somebody else has one is taken: nothing of ours is put there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Protocol

from backends.ipvs.render import entries
from backends.ipvs.render.entries import Place, marked, member_key, server_key, split_server
from backends.ipvs.render.sets import AT_FRONTENDS
from backends.kernel.virtual_servers import Server
from backends.kube_proxy import ipvs_leftovers
from backends.kube_proxy.ipvs_leftovers import Tells
from kproxy.core.addresses import Network
from kproxy.core.image import Changes, Key
from kproxy.ports.data_path import BackendError

Known = Callable[[bytes], bool]


class Memory(Protocol):
    """What is known of virtual servers, by their bytes, whoever of us wrote it."""

    def owns(self, server: bytes) -> bool:
        """Say whether one is ours."""

    def leaving(self) -> Iterable[bytes]:
        """Return those of ours that are there for open connections alone, or were."""


class Owners:
    """One family's virtual servers, each known by its key's bytes.

    - `wanted` says whether a Service has the place of one.
    - `left_by_kube_proxy` looks at the node and returns what tells which kube-proxy made.
    - `excluded`: in these networks kube-proxy's stay where no Service has their place.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        wanted: Known,
        left_by_kube_proxy: Callable[[], Tells],
        excluded: Collection[Network],
    ) -> None:
        self._memory = memory
        self._wanted = wanted
        self._left_by_kube_proxy = left_by_kube_proxy
        self._excluded = excluded
        self._kube_proxys: dict[bytes, Server] = {}
        self._others: set[bytes] = set()
        self.ours: set[bytes] = set()

    def sort(self, servers: Mapping[bytes, Server]) -> frozenset[bytes]:
        """Find out whose those are that the kernel told; return ours that it may have left out.

        While one entry goes, the kernel may skip another. Raises BackendError.
        """
        is_kube_proxys = self._left_by_kube_proxy()
        leaving = frozenset(self._memory.leaving())
        before, others = self.ours, self._others
        self.ours, self._others, self._kube_proxys = set(), set(), {}
        for raw, server in servers.items():
            if raw in others:
                self._others.add(raw)
            elif raw in leaving:
                self.ours.add(raw)
            elif is_kube_proxys(server) and not self._wanted(raw):
                self._kube_proxys[raw] = server
            elif raw in before or self._memory.owns(raw) or is_kube_proxys(server):
                self.ours.add(raw)
            else:
                self._others.add(raw)
        skipped = leaving - servers.keys() - others
        self.ours |= skipped
        return skipped

    def unclaimed(self, changes: Changes) -> frozenset[bytes]:
        """Return those to be made that nobody has as yet.

        Raises BackendError if somebody else has one where something of ours would be. To be asked
        before anything is written that `Memory` knows.
        """
        taken = [raw for raw in self._others if _concerns(raw, changes.put)]
        if taken:
            raise _refusal(taken)
        wanted = (raw for raw in map(split_server, changes.put) if raw is not None)
        return frozenset(
            raw
            for raw in wanted
            if not (raw in self.ours or raw in self._kube_proxys or self._memory.owns(raw))
        )

    def made(self, servers: Iterable[bytes], but: Collection[bytes]) -> None:
        """Note that we wrote these. Raises BackendError if it turned out that others had some."""
        written = set(servers).difference(but)
        self.ours |= written
        for raw in written & self._kube_proxys.keys():
            del self._kube_proxys[raw]
        if but:
            self._others.update(but)
            raise _refusal(but)

    def gone(self, servers: Iterable[bytes]) -> None:
        """Note that we removed these."""
        self.ours.difference_update(servers)

    def inherited(self) -> list[Server]:
        """Return those of kube-proxy's that no Service has: ours from now on, to be let go."""
        self._left_by_kube_proxy = lambda: ipvs_leftovers.made_by_nobody
        unwanted = {k: v for k, v in self._kube_proxys.items() if not v.is_in(self._excluded)}
        self.ours |= unwanted.keys()
        return list(unwanted.values())

    def taken(self) -> frozenset[Place]:
        """Return where somebody else has one."""
        return frozenset(_places(self._others))

    def look_again(self, is_there: Known) -> None:
        """Let those places be free that others have left."""
        self._others = set(filter(is_there, self._others))


def _concerns(raw: bytes, put: Mapping[Key, bytes]) -> bool:
    return server_key(raw) in put or any(member_key(kind, raw) in put for kind in AT_FRONTENDS)


def _places(servers: Iterable[bytes]) -> Iterator[Place]:
    return (entries.place_of(raw) for raw in servers if not marked(raw))


def _refusal(taken: Iterable[bytes]) -> BackendError:
    detail = entries.somebody_elses(list(_places(taken)))
    return BackendError("making virtual servers", detail, transient=False)
