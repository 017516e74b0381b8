"""Health ports at work, and what they are asked."""

import asyncio
import contextlib
import ipaddress
import json
import time

from kproxy.core.addresses import Family
from kproxy.core.objects import ObjectKey
from kproxy.core.table import HealthCheck, NodeRules, TableChanges, Undetected
from kproxy.run.http.health_ports import HealthPorts
from kproxy.run.http.server import HttpServer, Limits
from kproxy.run.http.sockets import Address
from tests.support.waiting import LONGEST_S
from tests.unit.run.http.scene import LOOPBACK, NOON, connected

V4, V6 = Family
WEB = ObjectKey("default", "web")
API = ObjectKey("default", "api")
SECOND = "127.0.0.2"
EVERYWHERE = {V4: "0.0.0.0/0", V6: "::/0"}
RETRY_S = 0.02


def rules(*networks):
    """Return rules whose nodePortAddresses are `networks`."""
    held = tuple(map(ipaddress.ip_network, networks))
    return NodeRules(Undetected(""), False, held, (), (), ())


def changes(family, checks, *networks):
    """Return a change of health checks, of Service to (port, count) or None."""
    return {
        family: TableChanges(
            family=family,
            rules=rules(*networks) if networks else None,
            health_checks={
                service: None if check is None else HealthCheck(*check)
                for service, check in checks.items()
            },
        )
    }


class World:
    """What HealthPorts asks and tells."""

    def __init__(self):
        self.healthy = True
        self.local = {V4: {LOOPBACK, SECOND, "192.0.2.1"}, V6: {"::1", "fe80::1"}}
        self.refused = None
        self.failures = []
        self.ports = HealthPorts(
            HttpServer(Limits(), lambda: NOON),
            healthy=lambda: self.healthy,
            local_addresses=self._addresses,
            failed=lambda service, note: self.failures.append((service, note)),
            retry_s=RETRY_S,
        )

    def _addresses(self, family):
        if self.refused is not None:
            raise self.refused
        return self.local[family]

    def update(self, checks, *networks, family=V4):
        """Change one family's table."""
        self.ports.update(changes(family, checks, *networks))


@contextlib.asynccontextmanager
async def running():
    """Run health ports that first learn the rules of loopback: 127.0.0.1 alone, and ::1."""
    world = World()
    world.update({}, "127.0.0.1/32")
    world.update({}, "::1/128", family=V6)
    task = asyncio.create_task(world.ports.run())
    try:
        yield world
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def served_at(port, host=LOOPBACK):
    """Return status code and body at a port, None if nobody listens, or just stopped to."""
    try:
        async with connected(Address(host, port)) as client:
            return await client.ask("/any/path")
    except (ConnectionError, asyncio.IncompleteReadError):
        return None


async def service_at(port, host=LOOPBACK):
    """Return the name of the Service that answers at a port, None if nobody does."""
    answer = await served_at(port, host)
    return answer and json.loads(answer[1])["service"]["name"]


async def eventually(question, *arguments, gives, **keywords):
    """Wait until a question has a certain answer."""
    give_up_at = time.monotonic() + LONGEST_S
    while (got := await question(*arguments, **keywords)) != gives:
        assert time.monotonic() < give_up_at, f"still {got}"
        await asyncio.sleep(0.002)
