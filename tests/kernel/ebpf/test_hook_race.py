"""Calls while the table is written: a replaced entry's memory is used again at once."""

import contextlib
import subprocess
import sys

import pytest

from kproxy.core.objects import Protocol
from tests.support.ebpf.talking import WIRES, hooked_with_known_pods, peer_of, udp
from tests.support.tables import pod, service_port, table

pytestmark = pytest.mark.kernel

_SERVICES = range(20, 52)
_MOST_ROUNDS = 2000
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
    """Write all entries of a map again and again."""
    fd = frontends.fileno()
    command = [sys.executable, "-c", _WRITER, str(fd)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, pass_fds=[fd], **pipes) as writer:
        writer.stdout.readline()
        try:
            yield
        finally:
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
    with rewritten(hooks.maps["frontends"]), hooked.client("node"):
        for _ in range(_MOST_ROUNDS):
            for number in _SERVICES:
                right = {(pod(wire.family, number), 8080), wire.vip(number)}
                assert called(wire, number) in right
            if hooks.reasons["TABLE_CHANGED"] >= before + _ENOUGH:
                break
    assert hooks.reasons["TABLE_CHANGED"] > before
