"""Keeps a server at its address, and waits for the address while somebody else has it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from kproxy.run.http.message import Handler
from kproxy.run.http.server import HttpServer
from kproxy.run.http.sockets import Address, bind_any_family

log = logging.getLogger(__name__)

_RETRY_S = 5.0


class BindError(Exception):
    """An address that must be ours cannot be had."""


async def keep_serving(
    server: HttpServer,
    address: Address,
    handler: Handler,
    *,
    name: str,
    hard_fail: bool,
    failed: Callable[[str], None],
    retry_s: float = _RETRY_S,
) -> None:
    """Serve `handler` at `address` until cancelled; `name` is for the log.

    A failure to listen is logged once, not at every try. If `hard_fail`, it is told to `failed`
    too, and raises BindError.
    """
    note = ""
    while True:
        try:
            listener = server.listen(bind_any_family(address), handler)
            break
        except OSError as error:
            before, note = note, f"{name}: cannot listen on {address}: {error.strerror}"
            if note != before:
                log.error("%s%s", note, "" if hard_fail else "; trying again until it works")
            if hard_fail:
                failed(note)
                raise BindError(note) from error
        await asyncio.sleep(retry_s)
    log.info("%s: serving at %s", name, address)
    try:
        await asyncio.Event().wait()
    finally:
        listener.close()
