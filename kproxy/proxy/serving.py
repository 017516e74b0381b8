"""A proxy that keeps running: the loop with its servers around it, and what ends it."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from kproxy import __version__
from kproxy.config.checks import split_address_port
from kproxy.config.fields import Configuration
from kproxy.config.writing import as_document
from kproxy.core.store import Change
from kproxy.node import heap
from kproxy.ports.source import Source
from kproxy.proxy.assembly import Proxy
from kproxy.run.http.connection import Limits
from kproxy.run.http.message import Router
from kproxy.run.http.metrics_mux import Pages, metrics_mux
from kproxy.run.http.serve import keep_serving
from kproxy.run.http.server import HttpServer
from kproxy.run.http.sockets import Address
from kproxy.run.http.zpages import About
from kproxy.run.loop.ahead import read_ahead
from kproxy.run.metrics import Metrics

log = logging.getLogger(__name__)

KUBERNETES = "1.37"  # whose kube-proxy we are like


@dataclass(frozen=True, slots=True)
class Duties:
    """What a process does besides forwarding.

    - `flags`: each flag of the command line with its value, for /flagz.
    - `server_failed` is told of a server that cannot listen: its name, and why.
    - `until` completes when the process shall end on its own account; it says why.
    """

    configuration: Configuration
    metrics: Metrics
    flags: Mapping[str, str]
    server_failed: Callable[[str, str], None]
    until: Callable[[], Awaitable[str]]


async def follow(build: Callable[[], Proxy], source: Source, duties: Duties) -> None:
    """Keep the kernel in step with a source until SIGTERM or SIGINT. The rules stay.

    The source is read while the proxy is built, in another thread: to open a data path takes time.
    Raises what either raised, and BindError if a server must not do without its address.
    """
    with heap.loading():
        proxy, batches = await read_ahead(source.batches(), asyncio.to_thread(build))
        await _keep_in_step(proxy, batches, duties)


async def _keep_in_step(
    proxy: Proxy, batches: AsyncIterator[tuple[Change, ...]], duties: Duties
) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, proxy, f"{signal.Signals(number).name}")
    try:
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(proxy.health_ports.run(), name="health ports"),
                tasks.create_task(proxy.port_watch.run(), name="ports of this node"),
                tasks.create_task(proxy.networks.run(), name="the host's networks"),
                tasks.create_task(proxy.handover.run(), name="handover"),
                tasks.create_task(_end(proxy, duties.until), name="reasons to end"),
                *(tasks.create_task(each) for each in _servers(proxy, duties)),
            ]
            await proxy.agent.run(batches)
            for task in beside:
                task.cancel()
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def never() -> str:
    """Wait for the reason to end of a process that has none of its own."""
    await asyncio.Event().wait()
    return ""


def _servers(proxy: Proxy, duties: Duties) -> list[Coroutine[Any, Any, None]]:
    configuration = duties.configuration
    pages = Pages(
        mode=configuration.mode.value,
        metrics=duties.metrics.expose,
        configuration=lambda: as_document(configuration),
        flags=lambda: duties.flags,
        about=About(__version__, KUBERNETES, time.time_ns(), time.time_ns),
    )
    wanted = (
        ("healthz", configuration.healthz_bind_address, proxy.health.router()),
        ("metrics", configuration.metrics_bind_address, metrics_mux(pages)),
    )
    return [
        _serve(name, Address(*split_address_port(address)), router, duties)
        for name, address, router in wanted
        if address
    ]


async def _serve(name: str, address: Address, router: Router, duties: Duties) -> None:
    await keep_serving(
        HttpServer(Limits(), time.time),
        address,
        router,
        name=name,
        hard_fail=duties.configuration.bind_address_hard_fail,
        failed=lambda note: duties.server_failed(name, note),
    )


async def _end(proxy: Proxy, until: Callable[[], Awaitable[str]]) -> None:
    _stop(proxy, await until())


def _stop(proxy: Proxy, why: str) -> None:
    log.info("%s: stopping, the rules stay in place", why)
    proxy.agent.stop()
