"""Servers that wait for their address."""

import asyncio
import contextlib
import logging

import pytest

from kproxy.run.http.serve import BindError, keep_serving
from kproxy.run.http.server import HttpServer, Limits
from kproxy.run.http.sockets import Address, bind_one_family
from tests.support.waiting import LONGEST_S
from tests.unit.run.http.scene import (
    LOOPBACK,
    NOON,
    asynchronous,
    connected,
    page,
    until,
)


@contextlib.asynccontextmanager
async def kept(address, failures):
    """Keep a server at `address`."""
    task = asyncio.create_task(
        keep_serving(
            HttpServer(Limits(), lambda: NOON),
            address,
            page,
            name="healthz",
            hard_fail=False,
            failed=failures.append,
            retry_s=0.01,
        )
    )
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def answers(address):
    """Say whether somebody serves there."""
    try:
        async with connected(address) as client:
            return await client.ask("/x") == (200, b"GET /x")
    except ConnectionRefusedError:
        return False


def lines(caplog):
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.mark.parametrize("host", [LOOPBACK, "::1", "0.0.0.0"])
@asynchronous
async def test_it_serves_until_it_is_cancelled(free_ports, host):
    address = Address(host, free_ports(1)[0])
    reached = address if host != "0.0.0.0" else Address("::1", address.port)
    failures = []
    async with kept(address, failures):
        async with asyncio.timeout(LONGEST_S):
            while not await answers(reached):
                pass
    assert not await answers(reached)
    assert failures == []


@asynchronous
async def test_a_taken_address_is_waited_for_and_logged_once(free_ports, caplog):
    caplog.set_level(logging.INFO)
    failures = []
    address = Address(LOOPBACK, *free_ports(1))
    taken = bind_one_family(address)
    taken.listen()
    async with kept(address, failures):
        await asyncio.sleep(0.1)
        taken.close()
        await until(lambda: len(caplog.records) == 2)
        assert await answers(address)
    note = f"healthz: cannot listen on {address}: Address already in use"
    assert failures == [], "upstream posts an event of a hard failure alone"
    assert lines(caplog) == [
        ("ERROR", f"{note}; trying again until it works"),
        ("INFO", f"healthz: serving at {address}"),
    ]


@asynchronous
async def test_a_hard_failure_is_told_and_ends_it(caplog):
    failures = []
    with bind_one_family(Address(LOOPBACK, 0)) as taken:
        taken.listen()
        address = Address(*taken.getsockname())
        with pytest.raises(BindError) as caught:
            await keep_serving(
                HttpServer(Limits(), lambda: NOON),
                address,
                page,
                name="metrics",
                hard_fail=True,
                failed=failures.append,
            )
    note = f"metrics: cannot listen on {address}: Address already in use"
    assert failures == [note]
    assert str(caught.value) == note
    assert lines(caplog) == [("ERROR", note)]
