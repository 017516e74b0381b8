"""What the tc programs of the eBPF data path cost by themselves, and what their maps take.

The programs are those that an agent has attached on a node with many Services, run by
BPF_PROG_TEST_RUN on packets of ours. A run of a program that does nothing, measured in the same
way, is subtracted.

- *foreign packet*: of no Service, the same one again and again.
- *1 flow, 10,000 flows*: a client's segments to a NodePort, translated at ingress: one after the
  other, of each flow in turn, after all flows were opened.
- *maps*: what the kernel charges for them before there is a flow, and for each flow.
"""

from __future__ import annotations

import contextlib
import statistics
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from backends.ebpf.driver.loader import family_folder, shared_folder
from backends.kernel.bpf import maps, programs
from backends.kernel.bpf.programs import Code, Program, ProgramType
from bench.cluster import NODE_ADDRESS, Cluster
from bench.links import details
from bench.programmed import programmed
from bench.record import Row, record, spread
from bench.stage import EBPF, OUTSIDE
from kproxy.core.addresses import Family

_FOREIGN = "10.191.128.1"
_REPEATED = 100_000
_FIRST_PORT = 1024
_RETURN_UNSPECIFIED = struct.pack("=BBhi", 0xB7, 0, 0, -1) + struct.pack("=BBhi", 0x95, 0, 0, 0)
_CONTEXT = struct.Struct("=40xI148x")  # struct __sk_buff; the device by which the packet came


@click.command()
@click.option("--services", default=10_000, show_default=True)
@click.option("--endpoints", default=10, show_default=True, help="Of each Service.")
@click.option("--flows", default=10_000, show_default=True)
@click.option("--rounds", default=9, show_default=True)
@click.option("--date", required=True, help="Written into the result.")
def main(services: int, endpoints: int, flows: int, rounds: int, date: str) -> None:
    """Measure the programs and maps of IPv4."""
    cluster = Cluster(services, endpoints)
    with programmed(cluster, EBPF) as stage, stage.node.entered():
        outside = details(stage.node, "outside")
        rows = list(measure(stage.place.bpffs, outside, cluster, flows=flows, rounds=rounds))
    parameters = {"services": services, "endpoints": endpoints, "flows": flows, "rounds": rounds}
    record("programs", date=date, parameters=parameters, results=rows)


def measure(
    bpffs: Path, device: Row, cluster: Cluster, *, flows: int, rounds: int
) -> Iterator[Row]:
    """Return a row for each thing that is measured; `device` is where the packets come in."""
    kernel_maps = family_folder(bpffs, Family.IPV4) / "current" / "maps"
    attached = shared_folder(bpffs) / "current" / "programs"
    idle_bytes = charged_bytes(kernel_maps)
    ethernet = Ether(dst=device["address"])
    foreign = ethernet / IP(src=OUTSIDE, dst=_FOREIGN) / UDP(sport=_FIRST_PORT) / bytes(18)
    opening, later = (
        [
            bytes(
                ethernet
                / IP(src=OUTSIDE, dst=NODE_ADDRESS)
                / TCP(sport=_FIRST_PORT + n, dport=cluster.node_port(0), flags=flags)
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
        yield {"what": "foreign packet", "ns": runs.repeated(bytes(foreign), rounds)}
        yield {"what": "new flow", "ns": runs.each(opening, 1)}
        yield {"what": "1 flow", "ns": runs.each(later[:1] * flows, rounds)}
        yield {"what": f"{flows:,} flows", "ns": runs.each(later, rounds)}
    yield {"what": "maps, before any flow", "bytes": idle_bytes}
    yield {
        "what": "maps, of a flow",
        "bytes": (charged_bytes(kernel_maps) - idle_bytes) / flows,
    }


class _Runs:
    """Runs a program, and another one that does nothing; returns the difference in ns."""

    def __init__(self, program: Program, nothing: Program, context: bytes) -> None:
        self._program = program
        self._nothing = nothing
        self._context = context

    def repeated(self, packet: bytes, rounds: int) -> Row:
        """Run it on one packet many times."""
        return self._difference([packet], rounds, repeat=_REPEATED)

    def each(self, packets: Sequence[bytes], rounds: int) -> Row:
        """Run it once on each packet."""
        return self._difference(packets, rounds, repeat=1)

    def _difference(self, packets: Sequence[bytes], rounds: int, *, repeat: int) -> Row:
        differences = [
            self._mean_ns(self._program, packets, repeat)
            - self._mean_ns(self._nothing, packets, repeat)
            for _ in range(rounds)
        ]
        return spread(differences, 1)

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


if __name__ == "__main__":
    main()
