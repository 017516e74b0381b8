"""The healthCheckNodePorts: they tell load balancers whether a Service has endpoints here.

Upstream: pkg/proxy/healthcheck/service_health.go (reference 1.4). Unlike there, the addresses to
listen on follow the Node and the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping

from kproxy.core.addresses import Family, Network
from kproxy.core.objects import ObjectKey
from kproxy.core.table import HealthCheck, TableChanges
from kproxy.ports.data_path import BackendError
from kproxy.run.http.message import JSON, NO_SNIFFING, Handler, Request, Response
from kproxy.run.http.server import HttpServer, Listener
from kproxy.run.http.sockets import Address, bind_one_family

log = logging.getLogger(__name__)

_RETRY_S = 5.0
_EVERY_ADDRESS = {Family.IPV4: "0.0.0.0", Family.IPV6: "::"}

_Owner = tuple[Family, ObjectKey]  # a Service has a port in each of its families


class HealthPorts:
    """Serves the health ports that the tables want; a change costs what it changes.

    - `healthy` says whether the proxy does its work.
    - `local_addresses` lists the host's addresses; it runs in a thread, may raise BackendError, and
      is asked only where nodePortAddresses leaves some out, then every `retry_s`.
    - `failed` is told, once and not at every try, of a Service whose port cannot be had.
    """

    def __init__(
        self,
        server: HttpServer,
        *,
        healthy: Callable[[], bool],
        local_addresses: Callable[[Family], Collection[str]],
        failed: Callable[[ObjectKey, str], None],
        retry_s: float = _RETRY_S,
    ) -> None:
        self._server = server
        self._healthy = healthy
        self._local_addresses = local_addresses
        self._failed = failed
        self._retry_s = retry_s
        self._checks: dict[Family, dict[ObjectKey, HealthCheck]] = {each: {} for each in Family}
        self._touched: dict[_Owner, None] = {}  # may not listen where they should; first come first
        self._networks: dict[Family, tuple[Network, ...]] = {}
        self._hosts: dict[Family, tuple[str, ...]] = {}  # where to listen, as last known
        self._listeners: dict[_Owner, dict[Address, Listener]] = {}
        self._failures: dict[_Owner | Family, str] = {}
        self._wake = asyncio.Event()

    def update(self, changed: Mapping[Family, TableChanges]) -> None:
        """Take in what changed of the tables; a family's first change has its rules.

        Counts are in force at once, ports as soon as `run` gets to them.
        """
        for family, changes in changed.items():
            if changes.rules is not None:
                self._networks[family] = changes.rules.node_port_addresses
                self._wake.set()
            for service, check in changes.health_checks.items():
                self._note(family, service, check)

    async def run(self) -> None:
        """Keep the wanted ports open until cancelled."""
        try:
            while True:
                self._wake.clear()
                await self._settle()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._retry_s if self._unsettled() else None):
                        await self._wake.wait()
        finally:
            for owner in list(self._listeners):
                self._close(owner, keep=())

    def _note(self, family: Family, service: ObjectKey, check: HealthCheck | None) -> None:
        checks = self._checks[family]
        before = checks.get(service)
        if check is None:
            checks.pop(service, None)
        else:
            checks[service] = check
        if (before and before.port) != (check and check.port):
            self._touched[family, service] = None
            self._wake.set()

    def _unsettled(self) -> bool:
        """Say whether something may have to be done without being told."""
        return bool(self._failures) or any(map(self._restricted, self._families()))

    def _families(self) -> list[Family]:
        return [family for family, checks in self._checks.items() if checks]

    def _restricted(self, family: Family) -> bool:
        return all(network.prefixlen > 0 for network in self._networks[family])

    async def _settle(self) -> None:
        """Close what is not wanted, then open what is missing: a port may have changed hands."""
        for family in Family:
            if self._checks[family]:
                await self._locate(family)
            else:
                self._failures.pop(family, None)
        failed = {each: None for each in self._failures if not isinstance(each, Family)}
        touched, self._touched = failed | self._touched, {}
        wanted = {owner: self._wanted(owner) for owner in touched}
        for owner, addresses in wanted.items():
            self._close(owner, keep=addresses)
            if not addresses:
                self._failures.pop(owner, None)
        for owner, addresses in wanted.items():
            self._open(owner, addresses)

    def _wanted(self, owner: _Owner) -> list[Address]:
        """Return where to listen for a Service."""
        family, service = owner
        check = self._checks[family].get(service)
        if check is None:
            return []
        if family not in self._hosts:  # it came while we looked, and its turn is next
            self._touched[owner] = None
            return []
        return [Address(host, check.port) for host in self._hosts[family]]

    async def _locate(self, family: Family) -> None:
        """Find out where a family listens; what was known stays in force if that fails."""
        if not self._restricted(family):
            self._failures.pop(family, None)
            self._move(family, (_EVERY_ADDRESS[family],))
            return
        try:
            local = await asyncio.to_thread(self._local_addresses, family)
        except BackendError as error:
            self._hosts.setdefault(family, ())
            self._report(family, f"{error}; the health ports stay where they are")
            return
        self._failures.pop(family, None)
        self._move(family, tuple(_inside(self._networks[family], local)))

    def _move(self, family: Family, hosts: tuple[str, ...]) -> None:
        """Let a family listen at these addresses."""
        if self._hosts.get(family) != hosts:
            self._hosts[family] = hosts
            self._touched.update(((family, service), None) for service in self._checks[family])

    def _open(self, owner: _Owner, addresses: Collection[Address]) -> None:
        """Listen at all addresses that are missing, or at none of them."""
        listeners = self._listeners.setdefault(owner, {}) if addresses else {}
        missing = [address for address in addresses if address not in listeners]
        handler = self._handler(owner)
        for address in missing:
            try:
                listeners[address] = self._server.listen(bind_one_family(address), handler)
            except OSError as error:
                self._close(owner, keep=listeners.keys() - set(missing))
                service = owner[1]
                note = f"cannot answer health checks of {service} at {address}: {error.strerror}"
                if self._report(owner, note):
                    self._failed(service, note)
                return
        if self._failures.pop(owner, None) is not None:
            log.info("%s: health checks of %s are answered now", owner[0].value, owner[1])

    def _close(self, owner: _Owner, *, keep: Collection[Address]) -> None:
        listeners = self._listeners.get(owner, {})
        for address in listeners.keys() - set(keep):
            listeners.pop(address).close()
        if not listeners:
            self._listeners.pop(owner, None)

    def _report(self, about: _Owner | Family, note: str) -> bool:
        """Log a failure and return True, unless it is the same as at the last try."""
        if self._failures.get(about) == note:
            return False
        self._failures[about] = note
        log.error("%s; trying again until it works", note)
        return True

    def _handler(self, owner: _Owner) -> Handler:
        family, service = owner
        namespace, name = service

        def answer(request: Request) -> Response:
            check = self._checks[family].get(service)
            count = check.local_ready if check is not None else 0
            healthy = self._healthy()
            body = {
                "service": {"namespace": namespace, "name": name},
                "localEndpoints": count,
                "serviceProxyHealthy": healthy,
            }
            weight = ("X-Load-Balancing-Endpoint-Weight", str(count))
            return Response(
                200 if count and healthy else 503,
                (JSON, NO_SNIFFING, weight),
                json.dumps(body, indent="\t").encode(),
            )

        return answer


def _inside(networks: Iterable[Network], addresses: Collection[str]) -> list[str]:
    """Return the addresses inside any of `networks` that can be bound without naming a link."""
    found = []
    for text in sorted(addresses):
        address = ipaddress.ip_address(text)
        bindable = address.version == 4 or not address.is_link_local
        if bindable and any(address in network for network in networks):
            found.append(text)
    return found
