"""Ports that tests keep, and listen at."""

from __future__ import annotations

import asyncio
import socket

from tests.support.ports import keep, listening, port_of
from tests.support.waiting import LONGEST_S


def test_what_is_written_to_a_connection_waits_for_no_acknowledgement():
    with keep() as place:
        assert asyncio.run(without_delay(port_of(place)))


async def without_delay(port):
    """Connect to a listener of ours; return whether its end of the connection has TCP_NODELAY."""
    accepted = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(
        lambda _, writer: accepted.set_result(writer), sock=listening(port)
    )
    _, client = await asyncio.open_connection("127.0.0.1", port)
    writer = await asyncio.wait_for(accepted, LONGEST_S)
    taken = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    for each in (client, writer, server):
        each.close()
    return taken
