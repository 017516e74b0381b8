"""What the tc programs of the eBPF data path cost by themselves, and what their maps take.

The programs are those that an agent has attached on a node with many Services, run by
BPF_PROG_TEST_RUN on packets of ours. A run of a program that does nothing, measured in the same
way, is subtracted.

- *a foreign packet*: of no Service, the same one again and again.
- *a packet of one flow, of each flow in turn*: a client's segments to a NodePort, translated at
  ingress, after all flows were opened.
- *maps*: what the kernel charges for them before there is a flow, and for each flow.
"""

from __future__ import annotations

import contextlib
import statistics
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from backends.ebpf.places import family_folder, shared_folder
from backends.kernel.bpf import maps, programs
from backends.kernel.bpf.programs import Code, Program, ProgramType
from bench.answers import answering
from bench.bed import Bed
from bench.links import details
from bench.node import Node
from bench.parameters import Parameters, Size
from bench.part import Finding, Found, Measure, Part, Visit, circumstances, largest
from bench.peers import KPROXY
from bench.stage import EBPF, OUTSIDE
from bench.traffic import Kind, Way, target
from kproxy.core.addresses import Family

_FOREIGN = "10.191.128.1"
FOREIGN = Measure("a foreign packet", "ns", "less")
NEW = Measure("the first packet of a flow", "ns", "less")
ONE = Measure("a packet of one flow", "ns", "less")
MANY = Measure("a packet of each flow in turn", "ns", "less")
IDLE = Measure("maps before any flow", "bytes", "less")
OF_A_FLOW = Measure("maps, of a flow", "bytes", "less")
_REPEATED = 100_000
_FIRST_PORT = 1024
_RETURN_UNSPECIFIED = struct.pack("=BBhi", 0xB7, 0, 0, -1) + struct.pack("=BBhi", 0x95, 0, 0, 0)
_CONTEXT = struct.Struct("=40xI148x")  # struct __sk_buff; the device by which the packet came


class Programs(Part):
    """The programs and maps of IPv4."""

    name = "programs"
    about = "nanoseconds of the ebpf data path's programs by themselves, and the size of its maps"
    measures = (FOREIGN, NEW, ONE, MANY, IDLE, OF_A_FLOW)
    warms_up = False

    def sizes(self, parameters: Parameters) -> Sequence[Size]:
        """Return the one that they cost most at."""
        return largest(parameters)

    def repeats(self, parameters: Parameters) -> int:
        """Return how many data paths are made, one for each visit."""
        return parameters.slow_repeats

    @contextlib.contextmanager
    def visits(self, bed: Bed) -> Iterator[Sequence[Visit]]:
        """Attach them on a fresh node each time."""

        def go() -> Iterable[Finding]:
            with bed.node(KPROXY[EBPF]) as node, answering(node.stage), node.stage.place.joined():
                node.start()
                node.wait_until_ready()
                with node.stage.node.entered():
                    yield from _measured(bed, node)

        chosen = KPROXY[EBPF] in bed.peers
        where = circumstances(bed.size, flows=bed.parameters.flows)
        yield [Visit(KPROXY[EBPF].name, where, go)] if chosen else []


def _measured(bed: Bed, node: Node) -> Iterator[Finding]:
    bpffs, device = node.stage.place.bpffs, details(node.stage.node, "outside")
    flows = bed.parameters.flows
    kernel_maps = family_folder(bpffs, Family.IPV4) / "current" / "maps"
    attached = shared_folder(bpffs) / "current" / "programs"
    idle_bytes = charged_bytes(kernel_maps)
    ethernet = Ether(dst=device["address"])
    foreign = ethernet / IP(src=OUTSIDE, dst=_FOREIGN) / UDP(sport=_FIRST_PORT) / bytes(18)
    there = target(Way.NODE_PORT, Kind.CONNECTIONS, translated=True)
    opening, later = (
        [
            bytes(
                ethernet
                / IP(src=OUTSIDE, dst=there.address)
                / TCP(sport=_FIRST_PORT + n, dport=there.port, flags=flags)
            )
            for n in range(flows)
        ]
        for flags in ("S", "A")
    )
    with (
        programs.pinned(attached / "gate_ingress") as ingress,
        programs.load(_nothing(), {}) as nothing,
    ):
        runs = _Runs(ingress, nothing, _CONTEXT.pack(device["ifindex"]))
        yield Found(FOREIGN, runs.ns([bytes(foreign)], repeat=_REPEATED))
        yield Found(NEW, runs.ns(opening))
        yield Found(ONE, runs.ns(later[:1] * flows))
        yield Found(MANY, runs.ns(later))
    yield Found(IDLE, idle_bytes)
    yield Found(OF_A_FLOW, (charged_bytes(kernel_maps) - idle_bytes) / flows)


class _Runs:
    """Runs a program, and another one that does nothing; the difference is what it costs."""

    def __init__(self, program: Program, nothing: Program, context: bytes) -> None:
        self._program = program
        self._nothing = nothing
        self._context = context

    def ns(self, packets: Sequence[bytes], *, repeat: int = 1) -> float:
        """Return the mean of runs on these packets, each so many times."""
        return self._mean_ns(self._program, packets, repeat) - self._mean_ns(
            self._nothing, packets, repeat
        )

    def _mean_ns(self, program: Program, packets: Sequence[bytes], repeat: int) -> float:
        return statistics.mean(
            programs.run(program, each, context=self._context, repeat=repeat).duration_ns
            for each in packets
        )


def charged_bytes(folder: Path) -> int:
    """Return what the kernel charges for the maps that are pinned in a folder."""
    total = 0
    for pin in folder.iterdir():
        with contextlib.closing(maps.pinned(pin)) as table:
            fields = Path(f"/proc/self/fdinfo/{table.fileno()}").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in fields if line.startswith("memlock:"))
    return total


def _nothing() -> Code:
    return Code("nothing", ProgramType.TC, 0, _RETURN_UNSPECIFIED, {})
