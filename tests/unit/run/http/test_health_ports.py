"""The healthCheckNodePort servers: who is answered what, and which ports are open when."""

import asyncio
import json
import logging

import pytest

from kproxy.core.objects import ObjectKey
from kproxy.ports.data_path import BackendError
from kproxy.run.http.sockets import Address, bind_one_family
from tests.support.open_files import open_files, opened_since
from tests.unit.run.http.health_scene import (
    API,
    EVERYWHERE,
    RETRY_S,
    SECOND,
    V4,
    V6,
    WEB,
    eventually,
    running,
    served_at,
    service_at,
)
from tests.unit.run.http.scene import (
    DATE,
    LOOPBACK,
    asynchronous,
    connected,
    get,
    once,
    until,
)


@pytest.mark.parametrize(
    ("count", "healthy", "status"),
    [
        (3, True, b"200 OK"),
        (0, True, b"503 Service Unavailable"),
        (3, False, b"503 Service Unavailable"),
    ],
)
@asynchronous
async def test_an_answer_is_exactly_this(free_ports, count, healthy, status):
    async with running() as world:
        (port,) = free_ports(1)
        world.healthy = healthy
        world.update({WEB: (port, count)})
        await eventually(service_at, port, gives="web")
        got = await once(Address(LOOPBACK, port), get("/"))
    body = (
        b'{\n\t"service": {\n\t\t"namespace": "default",\n\t\t"name": "web"\n\t},\n'
        b'\t"localEndpoints": %d,\n\t"serviceProxyHealthy": %b\n}'
    ) % (count, b"true" if healthy else b"false")
    head = (
        b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"
        b"X-Load-Balancing-Endpoint-Weight: %d\r\nDate: %b\r\nContent-Length: %d\r\n\r\n"
    )
    assert got == head % (status, count, DATE, len(body)) + body


@asynchronous
async def test_every_family_listens_and_counts_for_itself(free_ports):
    async with running() as world:
        (port,) = free_ports(1)
        world.update({WEB: (port, 2)}, EVERYWHERE[V4])
        await eventually(served_at, port, SECOND, gives=await_body(200, 2))
        assert await served_at(port, "::1") is None
        world.update({WEB: (port, 0)}, EVERYWHERE[V6], family=V6)
        await eventually(served_at, port, "::1", gives=await_body(503, 0))
        assert await served_at(port) == await_body(200, 2)


def await_body(status, count, name="web"):
    """Return what `served_at` returns for a healthy proxy."""
    body = {
        "service": {"namespace": "default", "name": name},
        "localEndpoints": count,
        "serviceProxyHealthy": True,
    }
    return status, json.dumps(body, indent="\t").encode()


@asynchronous
async def test_a_count_changes_without_a_word_to_the_kernel(free_ports):
    async with running() as world:
        (port,) = free_ports(1)
        world.update({WEB: (port, 1)})
        await eventually(service_at, port, gives="web")
        async with connected(Address(LOOPBACK, port)) as client:
            assert (await client.ask())[0] == 200
            world.update({WEB: (port, 0)})
            assert (await client.ask())[0] == 503
            world.update({WEB: (port, 5)})
            assert (await client.ask())[0] == 200


@asynchronous
async def test_a_deleted_service_loses_its_port_and_its_connections(free_ports):
    async with running() as world:
        first, second = free_ports(2)
        world.update({WEB: (first, 1), API: (second, 1)})
        await eventually(service_at, first, gives="web")
        await eventually(service_at, second, gives="api")
        async with connected(Address(LOOPBACK, first)) as client:
            await client.ask()
            world.update({WEB: None})
            await client.end()
        assert await served_at(first) is None
        assert await service_at(second) == "api"


@asynchronous
async def test_a_service_moves_to_another_port(free_ports):
    async with running() as world:
        old, new = free_ports(2)
        world.update({WEB: (old, 1)})
        await eventually(service_at, old, gives="web")
        world.update({WEB: (new, 1)})
        await eventually(service_at, new, gives="web")
        assert await served_at(old) is None


@asynchronous
async def test_two_services_may_swap_their_ports(free_ports):
    async with running() as world:
        first, second = free_ports(2)
        world.update({WEB: (first, 1), API: (second, 1)})
        await eventually(service_at, second, gives="api")
        world.update({WEB: (second, 1), API: (first, 1)})
        await eventually(service_at, second, gives="web")
        assert await service_at(first) == "api"
        assert world.failures == []


@asynchronous
async def test_a_port_passes_to_the_service_that_waits_for_it(free_ports):
    async with running() as world:
        (port,) = free_ports(1)
        world.update({WEB: (port, 1)})
        await eventually(service_at, port, gives="web")
        world.update({API: (port, 1)})
        await until(lambda: world.failures)
        world.update({WEB: None})
        await eventually(service_at, port, gives="api")
    assert [service for service, _ in world.failures] == [API]


@asynchronous
async def test_a_taken_port_is_told_once_and_retried(free_ports, caplog):
    caplog.set_level(logging.INFO)
    (port,) = free_ports(1)
    before = open_files()
    async with running() as world:
        with bind_one_family(Address(SECOND, port)) as taken:
            taken.listen()
            world.update({WEB: (port, 1)}, f"{LOOPBACK}/32", f"{SECOND}/32")
            await until(lambda: world.failures)
            await asyncio.sleep(3 * RETRY_S)
            assert await served_at(port) is None, "all of its addresses, or none"
        await eventually(service_at, port, gives="web")
        assert await service_at(port, SECOND) == "web"
        await asyncio.sleep(3 * RETRY_S)
    note = f"cannot answer health checks of {WEB} at {SECOND}:{port}: Address already in use"
    assert world.failures == [(WEB, note)]
    assert [record.getMessage() for record in caplog.records] == [
        f"{note}; trying again until it works",
        f"IPv4: health checks of {WEB} are answered now",
    ]
    await until(lambda: not opened_since(before))


@asynchronous
async def test_a_taken_port_is_retried_where_every_address_counts(free_ports):
    (port,) = free_ports(1)
    async with running() as world:
        with bind_one_family(Address(SECOND, port)) as taken:
            taken.listen()
            world.update({WEB: (port, 1)}, EVERYWHERE[V4])
            await until(lambda: world.failures)
        await eventually(service_at, port, gives="web")


@asynchronous
async def test_a_failure_ends_with_what_failed(free_ports):
    (port,) = free_ports(1)
    async with running() as world:
        with bind_one_family(Address(LOOPBACK, port)) as taken:
            taken.listen()
            world.update({WEB: (port, 1)})
            await until(lambda: len(world.failures) == 1)
            world.update({WEB: None})
            await asyncio.sleep(3 * RETRY_S)
            world.update({WEB: (port, 1)})
            await until(lambda: len(world.failures) == 2)


@asynchronous
async def test_it_listens_where_node_ports_hold_and_follows_the_node(free_ports):
    async with running() as world:
        (port,) = free_ports(1)
        world.update({WEB: (port, 1)}, "127.0.0.0/8")
        await eventually(service_at, port, SECOND, gives="web")
        assert await service_at(port) == "web"
        async with connected(Address(SECOND, port)) as client:
            await client.ask()
            world.update({}, f"{SECOND}/32")
            await eventually(served_at, port, gives=None)
            assert (await client.ask())[0] == 200, "an address that stays keeps its connections"
        world.update({}, "192.0.2.0/28")  # one of our addresses, if not one of the test host's
        await eventually(served_at, port, SECOND, gives=None)
        world.update({}, EVERYWHERE[V4])
        await eventually(service_at, port, "127.0.0.9", gives="web")
        world.update({}, "127.0.0.1/32")
        await eventually(served_at, port, "127.0.0.9", gives=None)


@asynchronous
async def test_it_follows_the_addresses_of_the_host(free_ports):
    async with running() as world:
        (port,) = free_ports(1)
        world.local[V4] = {LOOPBACK}
        world.update({WEB: (port, 1)}, "127.0.0.0/8")
        await eventually(service_at, port, gives="web")
        assert await served_at(port, SECOND) is None
        world.local[V4] = {SECOND}
        await eventually(service_at, port, SECOND, gives="web")
        assert await served_at(port) is None


@asynchronous
async def test_a_new_address_that_fails_does_not_close_the_others(free_ports):
    (port,) = free_ports(1)
    async with running() as world:
        with bind_one_family(Address(SECOND, port)) as taken:
            taken.listen()
            world.local[V4] = {LOOPBACK}
            world.update({WEB: (port, 1)}, "127.0.0.0/8")
            await eventually(service_at, port, gives="web")
            world.local[V4] = {LOOPBACK, SECOND}
            await until(lambda: world.failures)
            assert await service_at(port) == "web"


@asynchronous
async def test_no_matching_address_is_no_listener_and_no_failure(free_ports):
    async with running() as world:
        first, second = free_ports(2)
        world.update({WEB: (first, 1)}, "198.51.100.0/24")
        world.update({API: (second, 1)}, "fe80::/10", "::1/128", family=V6)
        await eventually(service_at, second, "::1", gives="api")
        assert await served_at(first) is None
        assert world.failures == []


@asynchronous
async def test_addresses_that_cannot_be_listed_change_nothing(free_ports, caplog):
    async with running() as world:
        first, second = free_ports(2)
        world.update({WEB: (first, 1)})
        await eventually(service_at, first, gives="web")
        world.refused = BackendError("list addresses", "busy", transient=True)
        world.update({API: (second, 1)})
        await eventually(service_at, second, gives="api")
        await asyncio.sleep(3 * RETRY_S)
        assert await service_at(first) == "web"
        world.refused = None
        world.local[V4] = {SECOND}
        world.update({}, "127.0.0.0/8")
        await eventually(service_at, first, SECOND, gives="web")
    assert [record.getMessage() for record in caplog.records] == [
        "list addresses: busy; the health ports stay where they are; trying again until it works"
    ]


@asynchronous
async def test_hundreds_of_ports_come_move_and_go(free_ports):
    services = [ObjectKey("default", f"s{number}") for number in range(300)]
    ports = free_ports(600)
    before = open_files()
    async with running() as world:
        world.update({service: (ports[at], 1) for at, service in enumerate(services)})
        await eventually(service_at, ports[299], gives="s299")
        await until(lambda: len(opened_since(before)) == 300)
        world.update({service: (ports[at + 300], 1) for at, service in enumerate(services)})
        await eventually(service_at, ports[599], gives="s299")
        assert await served_at(ports[0]) is None
        await until(lambda: len(opened_since(before)) == 300)
        world.update(dict.fromkeys(services))
        await until(lambda: not opened_since(before))
        assert world.failures == []
