"""Calls while the table is written: a replaced entry's memory is used again at once."""

import contextlib
import os
import subprocess
import sys
import time

import pytest

from kproxy.core.objects import Protocol
from tests.support.ebpf.talking import WIRES, hooked_with_known_pods, peer_of, udp
from tests.support.tables import pod, service_port, table
from tests.support.waiting import LONGEST_S

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(3 * LONGEST_S)]

_SERVICES = range(20, 52)
_ENOUGH = 5  # calls that met a change
# A process of its own, as this one's threads take turns.
_WRITER = """
import select, sys
from backends.kernel.bpf.maps import Map, shape_of
from backends.kernel.bpf.syscall import Descriptor
fd = int(sys.argv[1])
frontends = Map(fd, "frontends", shape_of(Descriptor(fd)))
entries = {key: value for key, value in frontends.items() if any(value[:8])}
print(flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(100):
        frontends.update_many(entries)
"""


@pytest.fixture(scope="module")
def hooked(bytecode):
    with hooked_with_known_pods(bytecode) as network:
        yield network


@contextlib.contextmanager
def rewritten(frontends):
    """Write all entries of a map again and again, where there are several CPUs on another one."""
    fd = frontends.fileno()
    cpus = os.sched_getaffinity(0)
    here = min(cpus)
    command = [sys.executable, "-c", _WRITER, str(fd)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, pass_fds=[fd], **pipes) as writer:
        writer.stdout.readline()
        os.sched_setaffinity(writer.pid, cpus - {here} or cpus)
        os.sched_setaffinity(0, {here})
        try:
            yield
        finally:
            os.sched_setaffinity(0, cpus)
            writer.communicate()


def called(wire, number):
    """Call a Service; return whom the socket really calls."""
    with udp(wire) as caller:
        caller.connect(wire.vip(number))
        return peer_of(caller, wire.family)


@pytest.mark.parametrize("wire", [WIRES[0], WIRES[2]])
def test_no_call_goes_to_another_services_endpoint(hooked, wire):
    """Each Service has one endpoint, of its own number; a call goes there or is left to tc."""
    hooks = hooked.families[wire.family]
    services = (
        service_port(wire.family, number, [number], protocol=Protocol.UDP) for number in _SERVICES
    )
    hooks.program(table(wire.family, *services))
    before = hooks.reasons["TABLE_CHANGED"]
    until = time.monotonic() + LONGEST_S
    with rewritten(hooks.maps["frontends"]), hooked.client("node"):
        while hooks.reasons["TABLE_CHANGED"] < before + _ENOUGH and time.monotonic() < until:
            for number in _SERVICES:
                right = {(pod(wire.family, number), 8080), wire.vip(number)}
                assert called(wire, number) in right
    assert hooks.reasons["TABLE_CHANGED"] > before
