"""A stream of small UDP packets from one core, and the count of those that arrived.

The kernel makes them by itself, many in one call (BPF_PROG_TEST_RUN with live frames): several
millions a second, so that who forwards them is the limit. Each has its whole header written anew.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from backends.ebpf.compiler import load_unit
from backends.ebpf.driver.objects import Objects, private
from backends.kernel import traffic_control
from backends.kernel.bpf.programs import Program
from backends.kernel.bpf.syscall import Command, address, demand
from backends.kernel.traffic_control import Filter, Parent
from bench.links import details
from kproxy.core.addresses import Family, family_of
from tests.support.ebpf.fixtures import bytecode_folder
from tests.support.net.namespace import Namespace

_SOURCE = Path(__file__).with_name("frames.bpf.c")
_HEADERS_BYTES = {Family.IPV4: 42, Family.IPV6: 62}
_STREAM = {
    family: struct.Struct(f"={size_bytes}sHIII") for family, size_bytes in _HEADERS_BYTES.items()
}
_FIRST_PORT = 10_000
MOST_FLOWS = 65_535 - _FIRST_PORT
_CHECK_SEQUENCE_BYTES = 4
LEAST_BYTES, MOST_BYTES = 64, 1518
"""Of an Ethernet frame, with its check sequence."""
_LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES
_AT_ONCE = 64  # frames between two looks at what they set off
_REPEATED = 16_384
_TEST_RUN = struct.Struct("=4I2Q4I2Q3I4x")
_ZERO = bytes(4)
_FILTERS = {
    family: Filter(priority=n, handle=1, kind="bpf", name="bench", program=0)
    for n, family in enumerate(Family, 1)
}
_PAUSE_S = 0.02
_STILL, _MOST = 5, 100  # looks without a change: nothing is on its way; looks at most


@dataclass(frozen=True, slots=True)
class Stream:
    """From whom to whom, in how many flows, of packets of which size on the wire."""

    source: str
    destination: str
    port: int
    flows: int
    size_bytes: int

    @property
    def family(self) -> Family:
        """The family of both addresses."""
        return family_of(self.source)


@dataclass(frozen=True, slots=True)
class Sent:
    """How many packets left and arrived in how many seconds."""

    packets: int
    arrived: int
    seconds: float

    @property
    def rate(self) -> float:
        """How many arrived a second."""
        return self.arrived / self.seconds


def least_bytes(family: Family) -> int:
    """Return the size of the smallest frame that has all headers."""
    return max(LEAST_BYTES, _HEADERS_BYTES[family] + _CHECK_SEQUENCE_BYTES)


class Frames:
    """The programs of both ends, loaded once. A context manager."""

    def __init__(self) -> None:
        cache = bytecode_folder()
        self._objects: dict[Family, Objects] = {
            family: private([load_unit(_SOURCE, family, cache=cache)], {}) for family in Family
        }

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._objects.values():
            each.close()

    @contextlib.contextmanager
    def counted(self, receiver: Namespace, device: str) -> Iterator[None]:
        """Take all UDP away that comes in by a device, and count it, while the body runs."""
        number = details(receiver, device)["ifindex"]
        with receiver.entered():
            traffic_control.add_clsact(number)
            for family, its in self._objects.items():
                program, wanted = its.programs["count"], _FILTERS[family]
                traffic_control.put_filter(number, Parent.INGRESS, wanted, program, replace=False)
        try:
            yield
        finally:
            with receiver.entered():
                traffic_control.remove_clsact(number)

    def arrived(self, family: Family) -> int:
        """Return how many packets were counted since the programs were loaded."""
        value = self._objects[family].maps["counts"].lookup(_ZERO)
        assert value is not None
        return sum(each for (each,) in struct.iter_unpack("=Q", value))

    def send(
        self, sender: Namespace, device: str, to_mac: str, stream: Stream, *, seconds: float
    ) -> Sent:
        """Open every flow, then send from one core until the time is up; count from then on."""
        mine, family = details(sender, device), stream.family
        frame = _frame(mine["address"], to_mac, stream)
        head = frame[: _HEADERS_BYTES[family]]
        content = _STREAM[family].pack(head, _FIRST_PORT, mine["ifindex"], stream.flows, 0)
        self._objects[family].maps["streams"].update(_ZERO, content)
        program = self._objects[family].programs["send"]
        with sender.entered(), _on_one_core():
            before, opening = self.arrived(family), -(-stream.flows // _REPEATED)
            for _ in range(opening):
                _run_live(program, frame)
            before = self._settled(family, before + opening * _REPEATED)
            packets, began_s = 0, time.monotonic()
            while (took_s := time.monotonic() - began_s) < seconds:
                _run_live(program, frame)
                packets += _REPEATED
        return Sent(packets, self._settled(family, before + packets) - before, took_s)

    def _settled(self, family: Family, all_of_them: int) -> int:
        """Return how many have arrived once all have, or no more come.

        Where the kernel leaves the rest to its own threads, a busy machine lets them wait.
        """
        seen, still = self.arrived(family), 0
        for _ in range(_MOST):
            if seen >= all_of_them or still == _STILL:
                break
            time.sleep(_PAUSE_S)
            now = self.arrived(family)
            seen, still = now, still + 1 if now == seen else 0
        return seen


def _frame(source_mac: str, to_mac: str, stream: Stream) -> bytes:
    payload = bytes(stream.size_bytes - _HEADERS_BYTES[stream.family] - _CHECK_SEQUENCE_BYTES)
    ethernet = Ether(src=source_mac, dst=to_mac)
    is_ipv4 = stream.family is Family.IPV4
    ip = (IP if is_ipv4 else IPv6)(src=stream.source, dst=stream.destination)
    checksum = 0 if is_ipv4 else None  # IPv6 must have one
    return bytes(ethernet / ip / UDP(sport=0, dport=stream.port, chksum=checksum) / payload)


@contextlib.contextmanager
def _on_one_core() -> Iterator[None]:
    """Keep this thread where it is, and with it all that it sets off."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _run_live(program: Program, frame: bytes) -> None:
    """Let a program see a frame many times, and do with it what it says. Raises KernelRefusal."""
    attributes = _TEST_RUN.pack(
        *(program.fileno(), 0, len(frame), 0, address(frame), 0, _REPEATED, 0, 0, 0),
        *(0, 0, _LIVE_FRAMES, 0, _AT_ONCE),
    )
    demand(Command.PROG_TEST_RUN, bytearray(attributes), "sending frames")
