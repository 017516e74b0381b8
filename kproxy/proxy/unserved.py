"""What is said in the log of service ports that forward nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from kproxy.core.addresses import Family
from kproxy.core.causes import Cause, LeftOut
from kproxy.core.compile import Compiler
from kproxy.core.diagnosis import Diagnosis, texts
from kproxy.core.objects import EndpointSlice, ObjectKey, Service
from kproxy.core.store import Difference
from kproxy.core.table import NodePort, ServicePort, ServicePortKey, Use, Via

_MOST_LINES = 50  # at once
_MOST_LINES_OF_A_CLUSTER = 10


class Line(NamedTuple):
    """One line, and the logging level that it deserves."""

    level: int
    text: str


class _Unserved(NamedTuple):
    """A service port of one family that forwards nothing, or nothing here, and why."""

    family: Family
    key: ServicePortKey
    port: int
    meaning: str
    causes: tuple[Cause, ...]

    @property
    def where(self) -> tuple[ServicePortKey, Family]:
        return self.key, self.family

    @property
    def line(self) -> Line:
        mistake = any(cause.mistake for cause in self.causes)
        return Line(logging.WARNING if mistake else logging.INFO, self.text)

    @property
    def text(self) -> str:
        where = f"port {self.port} {self.key.protocol.value}, {self.family.value}"
        return f"Service {self.key.service}: {where}: {self.meaning}: {texts(self.causes)}"


class Unserved(Protocol):
    """Follows the objects and says what forwards nothing."""

    def differed(self, difference: Difference) -> None:
        """Take note of an object that was added, altered or removed."""

    def news(self) -> Iterable[Line]:
        """Return what is new since the last time."""


class UnservedOfFolder:
    """Says it of a folder, where nobody but their author keeps Services and slices in step.

    Each thing once, and again when it comes back or has another cause. `left_out` returns what
    would have endpoints if it was right.
    """

    def __init__(
        self, compiler: Compiler, node_name: str, left_out: Callable[[], Sequence[LeftOut]]
    ) -> None:
        self._compiler = compiler
        self._node_name = node_name
        self._left_out = left_out
        self._touched: set[ObjectKey] = set()
        self._moved = False  # a slice came, went or was given to another Service
        self._left_out_before: Sequence[LeftOut] = ()
        self._said: dict[ObjectKey, dict[tuple[ServicePortKey, Family], str]] = {}

    def differed(self, difference: Difference) -> None:
        """Take note of which Services an object's change may concern."""
        both = (difference.old, difference.new)
        self._touched.update(each.key for each in both if isinstance(each, Service))
        slices = [each for each in both if isinstance(each, EndpointSlice)]
        owners = {each.service for each in slices}
        self._touched.update(owner for owner in owners if owner is not None)
        self._moved = self._moved or len(slices) == 1 or len(owners) > 1

    def news(self) -> Iterable[Line]:
        """Return what is new since the last time."""
        if not self._compiler.ready:
            return ()
        left_out = self._left_out()
        if self._moved or left_out != self._left_out_before:
            self._touched.update(self._said)  # it may be the one that another Service lacks
        self._left_out_before = left_out
        diagnosis = Diagnosis(self._compiler, self._node_name, left_out)
        lines: list[Line] = []
        for service in sorted(self._touched):
            before = self._said.pop(service, {})
            found = list(_unserved(self._compiler, diagnosis, service))
            lines += [each.line for each in found if before.get(each.where) != each.text]
            if found:
                self._said[service] = {each.where: each.text for each in found}
        self._touched.clear()
        self._moved = False
        return _few(lines, _MOST_LINES)


class UnservedOfCluster:
    """Says it of a cluster: once, and only what time will not heal.

    Controllers keep the rest in step, and a Service without endpoints is an everyday thing.
    """

    def __init__(self, compiler: Compiler, node_name: str) -> None:
        self._compiler = compiler
        self._node_name = node_name
        self._said = False

    def differed(self, difference: Difference) -> None:
        """Do nothing: what changes later is left to controllers."""

    def news(self) -> Iterable[Line]:
        """Return what ready endpoints are of no use to their Service, when all was listed once."""
        if self._said or not self._compiler.ready:
            return ()
        self._said = True
        diagnosis = Diagnosis(self._compiler, self._node_name)
        lines: list[Line] = []
        for service in sorted(_refused(self._compiler)):
            slices = self._compiler.slices_of(service).values()
            ready = {each.family for each in slices if any(e.ready for e in each.endpoints)}
            if ready:
                found = _unserved(self._compiler, diagnosis, service)
                lines += [Line(logging.INFO, e.text) for e in found if _is_mismatch(e, ready)]
        return _few(lines, _MOST_LINES_OF_A_CLUSTER)


def _refused(compiler: Compiler) -> set[ObjectKey]:
    """Return the Services that have a port without an endpoint."""
    return {
        key.service
        for table in compiler.tables.values()
        for key, entry in table.service_ports.items()
        if entry.internal is Use.REJECT
    }


def _is_mismatch(found: _Unserved, ready: Collection[Family | None]) -> bool:
    mistake = found.line.level == logging.WARNING
    return found.meaning == _REFUSED and mistake and found.family in ready


_REFUSED = "no usable endpoint anywhere, clients are refused"
_DROPPED = "policy Local and no endpoint on this node, packets are dropped"


def _unserved(compiler: Compiler, diagnosis: Diagnosis, service: ObjectKey) -> Iterator[_Unserved]:
    """Yield the ports of a Service that forward nothing.

    That endpoints are on other nodes is what policy Local is for, and nothing to speak of.
    """
    known = compiler.service(service)
    for family, table in compiler.tables.items():
        for port in known.ports if known else ():
            key = ServicePortKey(service.namespace, service.name, port.name, port.protocol)
            entry = table.service_ports.get(key)
            if entry is None:
                continue
            if entry.internal is Use.REJECT:
                causes = diagnosis.no_endpoint(key, family)
                yield _Unserved(family, key, port.port, _REFUSED, causes)
            elif _drops(entry):
                causes = diagnosis.none_here(key, family)
                if any(cause.mistake for cause in causes):
                    yield _Unserved(family, key, port.port, _DROPPED, causes)


def _drops(entry: ServicePort) -> bool:
    """Say whether policy Local drops packets to any frontend of a service port."""
    outer = [f for f in entry.frontends if isinstance(f, NodePort) or f.via is not Via.CLUSTER_IP]
    return entry.internal is Use.DROP or (bool(outer) and entry.external is Use.DROP)


def _few(lines: list[Line], most: int) -> list[Line]:
    if len(lines) <= most:
        return lines
    level = max(line.level for line in lines[most:])
    return [*lines[:most], Line(level, f"{len(lines) - most} more service ports forward nothing")]
