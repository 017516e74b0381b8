"""What one endpoint's change sends to the kernel in mode ipvs."""

from __future__ import annotations

import random
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from backends.ipvs.options import DEFAULT_SCHEDULER, IpvsOptions
from backends.ipvs.path import IpvsPath
from backends.kernel.netlink import Netlink
from backends.kernel.virtual_servers import Timeouts
from backends.kernel.xtables.tools import Variant
from bench.bed import Bed
from bench.cluster import NODE_ADDRESS, Cluster
from bench.objects import compiler as new_compiler
from bench.objects import lists, raw
from bench.part import Finding, Found, Measure, Part, Visit, circumstances
from bench.peers import KPROXY
from bench.stage import IPVS, built_stage
from kproxy.core.addresses import Family
from kproxy.core.objects import Kind
from kproxy.core.parse import from_json
from kproxy.core.store import Upserted
from kproxy.run.loop.reconcile import Reconciler

MESSAGES = Measure("netlink messages of a change", "1", "less")
BYTES = Measure("bytes sent of a change", "bytes", "less")
PROGRAMS = Measure("programs started for a change", "1", "less")
CPU = Measure("CPU of writing a change", "ms", "less")
_HEADER_BYTES = 16  # of a netlink message, which begins with its length
_OPTIONS = IpvsOptions(
    scheduler=DEFAULT_SCHEDULER,
    strict_arp=False,
    timeouts=Timeouts(0, 0, 0),
    excluded=(),
    variant=Variant.NF_TABLES,
    take_over=False,
)


@dataclass(slots=True)
class Sent:
    """What went to the kernel: netlink messages, their bytes, and programs that were started."""

    messages: int = 0
    bytes: int = 0
    programs: int = 0


class SentToKernel(Part):
    """What one change sends."""

    name = "sent"
    about = "netlink messages, bytes and programs of one change in mode ipvs"
    measures = (MESSAGES, BYTES, PROGRAMS, CPU)
    warms_up = False

    @contextmanager
    def visits(self, bed: Bed) -> Iterator[Sequence[Visit]]:
        """Move endpoints on a node without a process."""
        peer = KPROXY[IPVS]
        where = circumstances(bed.size)
        visit = Visit(peer.name, where, lambda: _sent(bed.cluster, bed.parameters.changes))
        yield [visit] if peer in bed.peers else []


def _sent(cluster: Cluster, changes: int) -> Iterator[Finding]:
    """Move endpoints of a cluster in the kernel; return what went there, and the CPU of it.

    What is counted is from the moment when the table is compiled until all is written, the median
    of the changes. Endpoints that drain are looked at later.
    """
    compiler = new_compiler()
    compiler.apply(lists([from_json(*raw(document)) for document in cluster.objects()]))
    with built_stage() as stage, stage.node.entered():
        backend = IpvsPath(_OPTIONS).backend(Family.IPV4)
        try:
            reconciler = Reconciler(backend, lambda: (NODE_ADDRESS,))
            reconciler.apply(compiler.tables[Family.IPV4].everything())
            each, cpu_ms = [], []
            for moved in _moves(cluster, changes):
                changed = compiler.apply((Upserted(from_json(*moved)),))
                before_s = time.process_time()
                with _counting() as counted:
                    reconciler.apply(changed[Family.IPV4])
                cpu_ms.append(1000 * (time.process_time() - before_s))
                each.append(counted)
        finally:
            backend.close()
    yield Found(MESSAGES, statistics.median(one.messages for one in each))
    yield Found(BYTES, statistics.median(one.bytes for one in each))
    yield Found(PROGRAMS, statistics.median(one.programs for one in each))
    yield Found(CPU, statistics.median(cpu_ms))


def _moves(cluster: Cluster, changes: int) -> list[tuple[Kind, bytes]]:
    """Return slices that have moved, each of another Service at random."""
    chance = random.Random(4)
    numbers = [chance.randrange(cluster.services) for _ in range(changes)]
    return [raw(cluster.endpoint_slice(number, moved)) for moved, number in enumerate(numbers)]


@contextmanager
def _counting() -> Iterator[Sent]:
    """Count what this process sends by netlink, and which programs it starts."""
    counted = Sent()
    send, start = Netlink.send, subprocess.Popen.__init__

    def sending(self: Netlink, messages: bytes) -> None:
        at = 0
        while at < len(messages):
            length = int.from_bytes(messages[at : at + 4], "little")
            assert length >= _HEADER_BYTES
            counted.messages += 1
            at += length + 3 & ~3
        counted.bytes += len(messages)
        send(self, messages)

    def starting(self: subprocess.Popen[bytes], *arguments: Any, **more: Any) -> None:
        counted.programs += 1
        start(self, *arguments, **more)

    with (
        patch.object(Netlink, "send", sending),
        patch.object(subprocess.Popen, "__init__", starting),
    ):
        yield counted
