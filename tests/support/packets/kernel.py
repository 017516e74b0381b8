"""Asks the kernel: programs a group's table into the node and sends the packets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from kproxy.core.addresses import Family
from kproxy.core.image import diff
from kproxy.core.objects import Protocol
from kproxy.core.table import ForwardingTable
from kproxy.ports.data_path import Backend
from tests.support.contract import tend
from tests.support.net import plan
from tests.support.net.network import Network, Pods
from tests.support.net.observed import Answered, Left, Observed, Probe, Refused, Silent
from tests.support.packets.asking import (
    ALL_FLOWS,
    CONTROL,
    LOCAL_ADDRESSES,
    bridged_interface,
    expectation,
    place_of,
    verdict_of,
)
from tests.support.packets.data_paths import DataPath
from tests.support.packets.table import Dropped, Flow, ForwardTo, Passed, Rejected

_CONTROL_ADDRESS, _, _CONTROL_PORT = CONTROL.rpartition(":")
# What an endpoint sees of a masqueraded connection: the node's address towards it.
_MASQUERADE = {
    **dict.fromkeys(("pod1", "pod2", "pod3"), plan.NODE_POD_SIDE),
    "node2": plan.NODE_SECOND,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a packet, and of one to the control frontend if nothing came back."""

    observed: Observed
    control: Observed | None


class Kernel:
    """One data path on a node of its own."""

    def __init__(self, data_path: DataPath) -> None:
        self._differs = data_path.differs
        self._bridged = data_path.pods is Pods.BRIDGED
        self._loopback = data_path.loopback
        self._backends: dict[Family, Backend] = {}
        self._tables: dict[Family, ForwardingTable] = {}
        self.network = Network(data_path.pods)
        with self.network.node.entered():
            self._data_path = data_path.on()
        self.network.serve(_target_ports())
        self.network.serve(_node_ports(), at=("node",))

    def program(self, table: ForwardingTable) -> None:
        """Make the node forward by this table, as a process that has just been started does."""
        table = table if self._loopback else _without_loopback(table)
        with self.network.node.entered():
            self._let_go(table.family)
            self._tables[table.family] = table
            backend = self._data_path.backend(table.family)
            self._backends[table.family] = backend
            rendered = backend.render(table.everything())
            want = {key: value for key, value in rendered.items() if value is not None}
            backend.commit(diff(backend.observe(), want))
            tend(backend)

    def close(self) -> None:
        """Take the node down."""
        for family in Family:
            self._let_go(family)
        self._data_path.close()
        self.network.close()

    def send(self, probes: Iterable[Probe]) -> list[Observed]:
        """Send these packets at once and return what became of each, in their order."""
        with self._data_path.speaking(self.network.namespaces):
            return self.network.send(probes)

    def ask(self, flows: list[Flow], family: Family) -> dict[Flow, Outcome]:
        """Send these packets over what is programmed and return what became of each."""
        observed = self.send([Probe(f.source, f.destination, f.port, f.protocol) for f in flows])
        outcomes = dict(zip(flows, observed, strict=True))
        silent = [flow for flow, seen in outcomes.items() if isinstance(seen, Silent)]
        answers = self.send([_control(flow, family) for flow in silent])
        controls = dict(zip(silent, answers, strict=True))
        return {flow: Outcome(seen, controls.get(flow)) for flow, seen in outcomes.items()}

    def is_right(self, flow: Flow, outcome: Outcome) -> bool:
        """Say whether a packet got what it deserves here.

        That is what the packet table says, but for how this network joins its pods, for loopback,
        and for what is known to be otherwise in this data path.
        """
        if self._bridged or not self._loopback:
            interface = bridged_interface(flow.source) if self._bridged else None
            verdict = verdict_of(flow, self._tables[flow.family], interface)
            flow = dataclasses.replace(flow, expected=expectation(verdict))
        return is_as_expected(flow, outcome) or self._differs(flow, outcome.observed)

    def _let_go(self, family: Family) -> None:
        backend = self._backends.pop(family, None)
        if backend is not None:
            backend.close()


def _without_loopback(table: ForwardingTable) -> ForwardingTable:
    """Return a table as the configuration makes it for data paths that cannot serve loopback."""
    everything = table.everything()
    rules = dataclasses.replace(table.rules, localhost_node_ports=())
    made = ForwardingTable(table.family, rules)
    made.apply(dataclasses.replace(everything, rules=rules))
    return made


def _control(flow: Flow, family: Family) -> Probe:
    """Return a packet to the control frontend by the way of a flow that got no answer."""
    source = flow.source
    if source in (plan.LOOPBACK, plan.ipv6_of(plan.LOOPBACK)):
        source = plan.in_family(plan.NODE, family)
    address = plan.in_family(_CONTROL_ADDRESS, family)
    return Probe(source, address, int(_CONTROL_PORT), Protocol.TCP)


def is_as_expected(flow: Flow, outcome: Outcome) -> bool:
    """Say whether the kernel did with a packet what the packet table says."""
    observed = outcome.observed
    match flow.expected:
        case ForwardTo(targets=targets, masqueraded=masqueraded):
            return (
                isinstance(observed, Answered)
                and observed.by in targets
                and _address(observed.source) in _sources(flow, observed, masqueraded=masqueraded)
            )
        case Rejected():
            return observed == Refused()
        case Dropped():
            return observed == Silent(arrived=True) and isinstance(outcome.control, Answered)
        case Passed() if place_of(flow.destination) is None:
            return observed == Left(flow.source)
        case Passed():
            return (
                isinstance(observed, Answered)
                and (_address(observed.by), _port(observed.by)) == (flow.destination, flow.port)
                and _address(observed.source) == flow.source
            )


def _sources(flow: Flow, observed: Answered, *, masqueraded: bool) -> frozenset[str]:
    """Return the addresses that the endpoint may see as the source."""
    if not masqueraded and _address(observed.by) != flow.source:
        return frozenset({flow.source})
    if observed.place == "node":
        return LOCAL_ADDRESSES
    return frozenset({plan.in_family(_MASQUERADE[observed.place], flow.family)})


def _address(endpoint: str) -> str:
    return endpoint.rpartition(":")[0].strip("[]")


def _port(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])


def _target_ports() -> set[int]:
    """Return the ports that some machine must answer on for the packet table to hold."""
    ports = {
        _port(target)
        for flow in ALL_FLOWS
        if isinstance(flow.expected, ForwardTo)
        for target in flow.expected.targets
    }
    direct = {f.port for f in ALL_FLOWS if place_of(f.destination) not in (None, "node")}
    return ports | direct


def _node_ports() -> set[int]:
    """Return the ports on the node's own addresses that the packet table names."""
    return {flow.port for flow in ALL_FLOWS if place_of(flow.destination) == "node"}
