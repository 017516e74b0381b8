"""What a change of one health port costs among many: counted, not timed."""

import asyncio
import contextlib
import sys

from kproxy.core.objects import ObjectKey
from kproxy.run.http import health_ports, server
from kproxy.run.http.sockets import Address
from tests.unit.run.http.health_scene import EVERYWHERE, V4, WEB, eventually, running, service_at
from tests.unit.run.http.scene import LOOPBACK, asynchronous, connected

TURNS = 20  # of the event loop, more than a change takes that asks nobody


class Lines:
    """Counts the lines of health_ports.py and server.py that run."""

    def __init__(self):
        self.count = 0

    def __enter__(self):
        sys.settrace(self._called)
        return self

    def __exit__(self, *_):
        sys.settrace(None)

    def _called(self, frame, event, argument):
        inside = frame.f_code.co_filename in (health_ports.__file__, server.__file__)
        return self._ran if inside else None

    def _ran(self, frame, event, argument):
        self.count += event == "line"
        return self._ran


@asynchronous
async def test_one_port_costs_the_same_among_many_as_among_few(free_ports):
    async def lines_of_a_change(others):
        async with running() as world:
            old, new, *ports = free_ports(2 + others)
            world.update({ObjectKey("default", f"s{port}"): (port, 1) for port in ports})
            world.update({WEB: (old, 1)}, EVERYWHERE[V4])
            await eventually(service_at, old, gives="web")
            async with contextlib.AsyncExitStack() as stack:
                for port in ports:
                    client = await stack.enter_async_context(connected(Address(LOOPBACK, port)))
                    await client.ask()
                with Lines() as lines:
                    world.update({WEB: (new, 1)})
                    for _ in range(TURNS):
                        await asyncio.sleep(0)
                assert await service_at(new) == "web"
            return lines.count

    assert await lines_of_a_change(60) == await lines_of_a_change(3)
