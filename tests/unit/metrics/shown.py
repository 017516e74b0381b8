"""What a page of each mode shows once everything has happened that can happen."""

from __future__ import annotations

import asyncio

from backends.ebpf.driver import counters as of_ebpf
from backends.iptables.driver import counters
from backends.ipvs.driver import counters as of_ipvs
from kproxy.config.fields import Mode
from kproxy.core.addresses import Family
from kproxy.ports.data_path import Sample
from kproxy.run.loop.agent import Ended
from kproxy.run.loop.worker import Job, Polled
from tests.support.tables import listed
from tests.unit.metrics.watched import SOURCE, watched
from tests.unit.run.virtual import run


def shapes(mode):
    """Return the shapes of all metrics by name, those of the mode's data path included."""

    async def scene():
        async with watched(mode=mode, source=SOURCE) as it:
            it.source.push(listed(1))
            await asyncio.sleep(3)
            it.metrics.request("GET", 200, "127.0.0.1:6443", 0.1)
            polled = Polled(disturbed=False, counted=_told_by(mode))
            for family in Family:
                job = Job(None, look=False, takes=False)
                it.metrics.done(Ended(family, job, polled, 0.0))
            return it.page().shapes()

    return run(scene)


def _told_by(mode):
    """Return samples of every metric that the data path of a mode has."""
    if mode is Mode.EBPF:
        labelled = (of_ebpf.OUTCOMES, of_ebpf.ENTRIES, of_ebpf.MOST)
        plain = (of_ebpf.FLOWS, of_ebpf.EXPIRED)
        return (
            *(Sample(metric, ("some",), 1.0) for metric in labelled),
            *(Sample(metric, (), 1.0) for metric in plain),
        )
    if mode is Mode.IPVS:
        labelled = (of_ipvs.VARIANT, of_ipvs.ELEMENTS)
        plain = (of_ipvs.SERVERS, of_ipvs.DRAINING)
        return (
            *(Sample(metric, ("some",), 1.0) for metric in labelled),
            *(Sample(metric, (), 1.0) for metric in plain),
        )
    if mode is not Mode.IPTABLES:
        return ()
    of_tables = [Sample(metric, ("nat",), 1.0) for metric in (counters.RULES, counters.WRITTEN)]
    of_packets = [Sample(metric, (), 1.0) for metric in counters.PACKETS.values()]
    return (*of_tables, *of_packets, Sample(counters.VARIANT, ("legacy",), 1.0))
