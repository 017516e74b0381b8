"""Why a packet is refused or dropped, as far as the API objects tell and the table does not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property

from kproxy.core.addresses import Family, family_of
from kproxy.core.causes import Cause, LeftOut, Strays, listed, no_endpoint, none_here
from kproxy.core.compile import Compiler
from kproxy.core.objects import PortSpec, Service
from kproxy.core.resolve import (
    NO_SERVICE,
    Drop,
    Packet,
    Pass,
    Reject,
    Verdict,
    no_local_endpoint,
    no_node_port,
)
from kproxy.core.table import ServicePortKey, Via


class Diagnosis:
    """Answers for the objects that are in force now, and for those that were left out.

    A new one is needed after each change. It reads all slices once, and only if it has to.
    """

    def __init__(
        self, compiler: Compiler, node_name: str, left_out: Sequence[LeftOut] = ()
    ) -> None:
        self._compiler = compiler
        self._node_name = node_name
        self._left_out = left_out

    def explained(self, packet: Packet, verdict: Verdict) -> Verdict:
        """Return a verdict whose reason names the cause too."""
        family = family_of(packet.destination)
        match verdict:
            case Reject(service=None, via=Via.CLUSTER_IP):
                return replace(verdict, reason=verdict.reason + self._ports_at(packet.destination))
            case Pass(reason=reason) if reason in (NO_SERVICE, no_node_port(packet.destination)):
                to = packet.destination if reason == NO_SERVICE else f":{packet.port}"
                left = self._destinations.get(to)
                return replace(verdict, reason=f"{reason}; but {left}") if left else verdict
            case Reject(service=ServicePortKey() as key):
                causes = self.no_endpoint(key, family)
            case Drop(service=ServicePortKey() as key, via=Via() as via) if (
                verdict.reason == no_local_endpoint(via)
            ):
                causes = self.none_here(key, family)
            case _:
                return verdict
        return replace(verdict, reason=f"{verdict.reason}: {texts(causes)}") if causes else verdict

    def no_endpoint(self, key: ServicePortKey, family: Family) -> tuple[Cause, ...]:
        """Return why no endpoint of a service port can be used."""
        port = self._port(key)
        if port is None:
            return ()
        slices = self._compiler.slices_of(key.service)
        return no_endpoint(key.service, port, family, slices, self._strays)

    def none_here(self, key: ServicePortKey, family: Family) -> tuple[Cause, ...]:
        """Return why no endpoint of a service port is known to be on this node."""
        port = self._port(key)
        if port is None:
            return ()
        slices = self._compiler.slices_of(key.service)
        return (none_here(port, family, slices.values(), self._node_name),)

    @cached_property
    def _destinations(self) -> dict[str, LeftOut]:
        return {to: left for left in reversed(self._left_out) for to in left.destinations}

    @cached_property
    def _strays(self) -> Strays:
        services = {service.key for service in self._compiler.services()}
        return Strays(services, self._compiler.slices(), self._left_out)

    @cached_property
    def _at_cluster_ip(self) -> dict[str, Service]:
        services = sorted(self._compiler.services(), key=lambda service: service.key, reverse=True)
        return {address: service for service in services for address in service.cluster_ips}

    def _port(self, key: ServicePortKey) -> PortSpec | None:
        service = self._compiler.service(key.service)
        ports = service.ports if service else ()
        return next((p for p in ports if (p.name, p.protocol) == (key.port, key.protocol)), None)

    def _ports_at(self, address: str) -> str:
        service = self._at_cluster_ip.get(address)
        if service is None:
            return ""
        ports = listed(f"{port.protocol.value} {port.port}" for port in service.ports)
        return f"; Service {service.key} has {ports or 'no port'}"


def texts(causes: Collection[Cause]) -> str:
    """Return some causes as one text."""
    return "; ".join(cause.text for cause in causes)
