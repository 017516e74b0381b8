"""The virtual servers of one family and what is behind them, as part of the image.

A destination that is not wanted any more takes no new connections, and leaves when the kernel has
forgotten those that it has: until then it has weight 0, and is not in the image, nor is a server
that has no others. UDP has no end that a kernel sees: it leaves at once.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Iterable, Iterator

from backends.ipvs.driver.draining import Draining, Pair
from backends.ipvs.driver.owners import Owners
from backends.ipvs.driver.servers_watch import ServersWatch
from backends.ipvs.render.entries import (
    WEIGHT,
    Place,
    raw_destination_key,
    server_key,
    split_destination,
    split_server,
)
from backends.ipvs.render.marks import is_of_udp
from backends.kernel.virtual_servers import (
    Destination,
    Load,
    Server,
    Settings,
    VirtualServers,
)
from kproxy.core.addresses import Family
from kproxy.core.image import Changes, Image, Key


class Servers:
    """One family's virtual servers, each known by its key's bytes."""

    def __init__(self, family: Family, owners: Owners) -> None:
        self._family = family
        self._owners = owners
        self._watch = ServersWatch(family, self._digests)
        self._draining = Draining()
        self._leaving: set[Server] = set()  # as soon as nothing is behind them

    def observe(self) -> Image:
        """Read back our virtual servers and those destinations that take connections."""
        image: dict[Key, bytes] = {}
        self._watch.reading()
        draining: list[Pair] = []
        with VirtualServers("reading virtual servers") as kernel:
            settings = {s: how for s, how in kernel.servers() if s.family is self._family}
            told = {raw_server(server): server for server in settings}
            digests: dict[bytes, int | None] = dict.fromkeys(told)
            leaving = {_server(self._family, raw) for raw in self._owners.sort(told)}
            ours = (server for raw, server in told.items() if raw in self._owners.ours)
            for server in (*ours, *leaving):
                raw = raw_server(server)
                found = kernel.destinations(server)
                if server in settings:
                    digests[raw] = _digest(settings[server], found)
                for destination, load in found:
                    if load.weight:
                        key = raw_destination_key(raw, destination.address, destination.port)
                        image[key] = _weight(load)
                    else:
                        draining.append((server, destination))
                if found and not any(load.weight for _, load in found):
                    leaving.add(server)
                elif server in settings:
                    image[server_key(raw)] = _value(settings[server])
        self._watch.told(digests)
        self._draining.replace(draining)
        self._leaving = leaving
        return image

    def unclaimed(self, changes: Changes) -> frozenset[bytes]:
        """Return those to be made that nobody has as yet.

        Raises BackendError if somebody else has one where something of ours would be. To be asked
        before anything is written from which ours are known.
        """
        return self._owners.unclaimed(changes)

    def put(self, changes: Changes, unclaimed: Collection[bytes]) -> None:
        """Make what is missing. Raises BackendError, also if somebody made an `unclaimed` one."""
        servers = list(self._servers(changes.put))
        pairs = list(self._pairs(changes.put))
        self._touch(servers, pairs)
        new: list[tuple[Server, Settings]] = []
        known: list[tuple[Server, Settings]] = []
        for raw, server in servers:
            to = new if raw in unclaimed else known
            to.append((server, _settings(changes.put[server_key(raw)])))
        with VirtualServers("writing virtual servers") as kernel:
            kernel.put_servers(known)
            of_others = {raw_server(server) for server in kernel.make_servers(new)}
            self._owners.made((raw for raw, _ in servers), of_others)
            kernel.put_destinations(pairs, weight=int(WEIGHT))
        self._leaving.difference_update(server for _, server in servers)
        self._draining.discard(pairs)

    def drop(self, changes: Changes) -> None:
        """Let go of what is not wanted any more. Raises BackendError."""
        servers = list(self._servers(changes.drop))
        pairs = list(self._pairs(changes.drop))
        self._touch(servers, pairs)
        self._leaving.update(server for _, server in servers)
        at_once = [pair for pair in pairs if _is_of_udp(pair[0])]
        with VirtualServers("removing virtual servers") as kernel:
            kernel.delete_destinations(at_once)
            graceful = [pair for pair in pairs if not _is_of_udp(pair[0])]
            kernel.drain(graceful)
            self._draining.add(graceful)
            for server in dict.fromkeys(server for server, _ in graceful):
                self._let_destinations_go(kernel, server)
            self._let_servers_go(kernel)

    def take_over(self) -> None:
        """Let go of what kube-proxy left and no Service has. Raises BackendError."""
        unwanted: set[Key] = set()
        with VirtualServers("reading virtual servers") as kernel:
            for server in self._owners.inherited():
                raw = raw_server(server)
                unwanted.add(server_key(raw))
                for each, _ in kernel.destinations(server):
                    unwanted.add(raw_destination_key(raw, each.address, each.port))
        self.drop(Changes({}, frozenset(unwanted)))

    def taken(self) -> frozenset[Place]:
        """Return where somebody else has one: nothing of ours can be there."""
        return self._owners.taken()

    def look_again(self) -> None:
        """Let those places be free that others have left, as the watch saw last."""
        self._owners.look_again(self._watch.sees)

    def tend(self, budget_s: float) -> None:
        """Remove what has drained, as far as the time goes: others come the next time.

        Raises BackendError.
        """
        if not self._draining and not self._leaving:
            return
        end_s = time.monotonic() + budget_s
        with VirtualServers("removing drained destinations") as kernel:
            for server in self._draining.in_turn():
                self._let_destinations_go(kernel, server)
                if time.monotonic() >= end_s:
                    break
            self._let_servers_go(kernel)

    def leaving(self) -> frozenset[bytes]:
        """Return those at an address that are there for open connections alone, by their bytes."""
        return frozenset(raw_server(each) for each in self._leaving if not each.mark)

    def count(self) -> int:
        """Return how many virtual servers are ours."""
        return len(self._owners.ours)

    def draining(self) -> int:
        """Return how many destinations are there for open connections alone."""
        return len(self._draining)

    def disturbed(self) -> bool:
        """Say whether others may have changed virtual servers of ours. Raises BackendError."""
        return self._watch.disturbed(self._owners.ours)

    def _digests(self, wanted: Collection[bytes]) -> dict[bytes, int]:
        """Return one of each of these that is there."""
        with VirtualServers("looking at virtual servers") as kernel:
            return {
                raw: _digest(how, kernel.destinations(server))
                for server, how in kernel.servers()
                if server.family is self._family and (raw := raw_server(server)) in wanted
            }

    def _touch(self, servers: Iterable[tuple[bytes, Server]], pairs: Iterable[Pair]) -> None:
        self._watch.touched(raw for raw, _ in servers)
        self._watch.touched(raw_server(server) for server, _ in pairs)

    def _let_destinations_go(self, kernel: VirtualServers, server: Server) -> None:
        over = self._draining.ended(kernel, server)
        kernel.delete_destinations(over)
        self._touch((), over)
        self._draining.discard(over)

    def _let_servers_go(self, kernel: VirtualServers) -> None:
        free = {each for each in self._leaving if each not in self._draining}
        kernel.delete_servers(free)
        self._leaving -= free
        self._owners.gone(map(raw_server, free))

    def _servers(self, keys: Iterable[Key]) -> Iterator[tuple[bytes, Server]]:
        for key in keys:
            raw = split_server(key)
            if raw is not None:
                yield raw, _server(self._family, raw)

    def _pairs(self, keys: Iterable[Key]) -> Iterator[Pair]:
        servers: dict[bytes, Server] = {}
        for key in keys:
            found = split_destination(key)
            if found is not None:
                raw, address, port = found
                server = servers.get(raw) or servers.setdefault(raw, _server(self._family, raw))
                yield server, Destination(address, port)


def _digest(settings: Settings, behind: Iterable[tuple[Destination, Load]]) -> int:
    return hash((settings, *((each, load.weight, load.translated) for each, load in behind)))


def _is_of_udp(server: Server) -> bool:
    return is_of_udp(server.mark) if server.mark else server.protocol == socket.IPPROTO_UDP


def raw_server(server: Server) -> bytes:
    """Return a virtual server as the bytes of its key."""
    if server.mark:
        return b"\0" + server.mark.to_bytes(4, "big")
    return bytes([server.protocol]) + server.address + server.port.to_bytes(2, "big")


def _server(family: Family, raw: bytes) -> Server:
    if raw[0] == 0:
        return Server(family, mark=int.from_bytes(raw[1:], "big"))
    return Server(family, raw[0], raw[1:-2], int.from_bytes(raw[-2:], "big"))


def _value(settings: Settings) -> bytes:
    timeout_s = settings.timeout_s if settings.flags & 1 else 0
    return f"{settings.scheduler}:{settings.flags}:{timeout_s}".encode()


def _settings(value: bytes) -> Settings:
    scheduler, flags, timeout_s = value.decode().split(":")
    return Settings(scheduler, int(flags), int(timeout_s))


def _weight(load: Load) -> bytes:
    return str(load.weight).encode() if load.translated else b"not translated"
