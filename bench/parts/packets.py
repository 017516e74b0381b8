"""How many small packets a second a node forwards: UDP, from a sender that keeps one core busy.

The sender and the node share that core, as the kernel forwards where a packet comes in: it is one
queue of a network card. What arrives in a second is counted behind the node. The sender alone is
measured beside, where the node takes all away at its device: no proxy can be faster.

Traps: one flow stays in the processor's caches, so there are thousands; a flow that is opened costs
more than its next packet, so all are opened before a visit is timed; a table of connections that is
full refuses the rest, and what did not arrive has to be counted as dropped somewhere: both is said.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterable, Iterator, Sequence

from bench.bed import Bed
from bench.links import details, dropped
from bench.load.frames import Sent, Stream, least_bytes
from bench.load.tracking import refused
from bench.node import Node
from bench.noise import ratios
from bench.parameters import Parameters, Size
from bench.part import (
    Finding,
    Found,
    Limited,
    Measure,
    Part,
    Rounds,
    Visit,
    circumstances,
    largest,
)
from bench.stage import Stage, built_stage
from bench.traffic import Kind, Target, Way, ends, target
from kproxy.core.addresses import Family

FORWARDED = Measure("packets forwarded", "1/s", "more")
LOST = Measure("packets lost", "%", "less")
ALONE = "the generator alone"
_MUCH, _NEARLY_ALL = 0.5, 0.9  # of the time: then what is measured is the generator as well
_NOWHERE = {Family.IPV4: "192.0.2.99", Family.IPV6: "2001:db8::99"}


class Packets(Part):
    """Packets that a node forwards in a second."""

    name = "packets"
    about = "small UDP packets a second through one core, and how many are lost"
    measures = (FORWARDED, LOST)

    def sizes(self, parameters: Parameters) -> Sequence[Size]:
        """Return one: a packet of an open connection is looked up among connections."""
        return largest(parameters)

    @contextlib.contextmanager
    def visits(self, bed: Bed) -> Iterator[Sequence[Visit]]:
        """Count at the receiving ends of all nodes."""
        with contextlib.ExitStack() as closing:
            alone = closing.enter_context(built_stage())
            closing.enter_context(bed.frames.counted(alone.node, "outside"))
            for node in bed.nodes:
                for receiver in (node.stage.far, node.stage.client):
                    closing.enter_context(bed.frames.counted(receiver, "eth0"))
            generator = _Generator(bed)
            yield [
                visit
                for family in bed.families
                for visit in (
                    generator.alone(alone, family),
                    *(generator.visit(node, way, family) for node in bed.nodes for way in bed.ways),
                )
            ]

    def judged(self, found: Sequence[Rounds]) -> Iterator[tuple[Visit, Limited]]:
        """Say of whom the generator took much of the time, which it shares with the node."""
        rates = [each for each in found if each.measure is FORWARDED]
        alone = {each.visit.where["family"]: each for each in rates if each.visit.who == ALONE}
        for each in rates:
            its = alone.get(each.visit.where["family"])
            if its is None or its is each or not (parts := ratios(each.values, its.values)):
                continue
            share, most = statistics.median(parts), statistics.median(its.values.values()) / 1e6
            if share > _MUCH:
                what = "was the limit" if share > _NEARLY_ALL else "is measured too"
                took = f"it took {share:.0%} of the time, and alone makes {most:.2f} million/s"
                yield each.visit, Limited(f"the generator {what}: {took}")


class _Generator:
    """Sends along the ways, and where nobody forwards."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed

    def alone(self, stage: Stage, family: Family) -> Visit:
        """Return the visit that measures the generator itself."""

        def go() -> Iterable[Finding]:
            there = Target(_NOWHERE[family], Kind.PACKETS.endpoint_port)
            sent = self._send(stage, Way.NODE_PORT, there, family)
            yield Found(FORWARDED, sent.rate)

        return Visit(ALONE, self._where(family), go)

    def visit(self, node: Node, way: Way, family: Family) -> Visit:
        """Return the visit of a way through a node."""
        there = target(way, Kind.PACKETS, translated=node.peer.translates, family=family)

        def go() -> Iterable[Finding]:
            unfit, drops = refused(node.stage.node), dropped(node.stage.node)
            sent = self._send(node.stage, way, there, family)
            unfit, drops = refused(node.stage.node) - unfit, dropped(node.stage.node) - drops
            lost = sent.packets - sent.arrived
            yield Found(FORWARDED, sent.rate)
            yield Found(LOST, 100 * lost / sent.packets)
            if unfit:
                yield Limited(f"the table of connections was full: it refused {unfit} packets")
            if lost > unfit + drops:
                yield Limited(
                    f"{lost} packets of {sent.packets} were lost, {drops} of them counted"
                )

        where = self._where(family) | {"path": way.value, "protocol": "UDP"}
        return Visit(node.peer.name, where, go)

    def _send(self, stage: Stage, way: Way, there: Target, family: Family) -> Sent:
        chosen = self._bed.parameters
        between = ends(way, stage, family)
        size_bytes = self._size_bytes(family)
        stream = Stream(between.source, there.address, there.port, chosen.flows, size_bytes)
        mac = details(stage.node, between.enters_by)["address"]
        return self._bed.frames.send(between.sender, "eth0", mac, stream, seconds=chosen.seconds)

    def _where(self, family: Family) -> dict[str, str | int | float]:
        chosen = self._bed.parameters
        return circumstances(
            self._bed.size,
            family=family.value,
            flows=chosen.flows,
            packet_bytes=self._size_bytes(family),
        )

    def _size_bytes(self, family: Family) -> int:
        return max(self._bed.parameters.packet_size, least_bytes(family))
