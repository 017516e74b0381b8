"""Random tables, traffic and clean-ups: what is left is what the table would make of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from kproxy.core.flows import Flow, UdpFlows, Where
from kproxy.core.table import NodeRules, ServicePort, ServicePortKey, TableChanges, Vip
from tests.support.flows import (
    LOCAL,
    NODE,
    NODE_PORT,
    OTHER_VIP,
    SECOND,
    VIP,
    A,
    B,
    C,
    change,
    flow,
    key,
    rules,
    service_port,
)

KEYS = [key("one"), key("two"), key("three")]
PLACES = [VIP, OTHER_VIP, ("10.96.0.12", 53), NODE_PORT, NODE_PORT + 1]
ENDPOINTS = [A, B, C, ("10.244.0.4", 5353)]
HELD = {
    rules(["0.0.0.0/0"]): LOCAL,
    rules(["192.0.2.0/24"], localhost=False): (NODE,),
    rules(["198.51.100.0/24"], localhost=True): (SECOND, "127.0.0.1"),
}
SCOPES = list(HELD)
FOREIGN = [
    flow(VIP, A, zone=7),
    flow((NODE, NODE_PORT), ("172.16.0.9", 9)),
    flow(("203.0.113.200", NODE_PORT), A),
    flow(("203.0.113.200", NODE_PORT)),
    flow(("10.96.0.12", 54)),
    flow(A),
]
Table = dict[ServicePortKey, ServicePort]


@st.composite
def tables(draw) -> Table:
    """Draw a table in which no frontend has two owners."""
    owners = draw(st.tuples(*[st.sampled_from([None, *KEYS]) for _ in PLACES]))
    table = {}
    for each in KEYS:
        places = [place for place, owner in zip(PLACES, owners, strict=True) if owner == each]
        serving = draw(st.sets(st.sampled_from(ENDPOINTS)))
        used = draw(st.sets(st.sampled_from(sorted(serving)))) if serving else set()
        if places:
            table[each] = service_port(places, serving, used=used, of=each)
    return table


STEPS = st.tuples(
    tables(), st.sampled_from(SCOPES), st.sampled_from(["none", "half", "full"]), st.randoms()
)


@dataclass
class Node:
    """A kernel that translates as the table in force says, and never forgets a flow by itself."""

    table: Table = field(default_factory=dict)
    rules: NodeRules = SCOPES[0]
    flows: set[Flow] = field(default_factory=set)

    def change_to(self, table: Table, at: NodeRules) -> TableChanges:
        """Take a new table over and return what changed."""
        changed = [entry for each, entry in table.items() if self.table.get(each) != entry]
        difference = change(*changed, gone=self.table.keys() - table.keys(), rules=at)
        self.table, self.rules = table, at
        return difference

    def owner(self, to: Where) -> ServicePort | None:
        """Return which service port has this destination."""
        address, port = to
        for entry in self.table.values():
            for frontend in entry.frontends:
                if isinstance(frontend, Vip):
                    reached = (frontend.address, frontend.port) == to
                else:
                    reached = frontend.port == port and address in HELD[self.rules]
                if reached:
                    return entry
        return None

    def open_flows(self, choice: random.Random) -> None:
        """Send one packet of a new client to every destination there is."""
        at_node_ports = [(a, p) for a in LOCAL for p in (NODE_PORT, NODE_PORT + 1)]
        for to in [*PLACES[:3], *at_node_ports]:
            client = ("203.0.113.7", choice.randrange(1, 65536))
            entry = self.owner(to)
            if entry is None:
                self.flows.add(flow(to, client=client))
            elif entry.targets:
                target = choice.choice(entry.targets)
                self.flows.add(flow(to, (target.address, target.port), client=client))

    def in_order(self, each: Flow) -> bool:
        """Say whether a flow is what the table makes of it, or may go on."""
        to, answers = each[2:4], each[4:6]
        entry = self.owner(to)
        return to == answers if entry is None else answers in entry.serving


@given(st.lists(STEPS, min_size=1, max_size=8))
def test_a_clean_up_leaves_exactly_the_flows_that_are_in_order(steps):
    """However tables, traffic and failed clean-ups followed each other."""
    node = Node()
    flows = UdpFlows()
    flows.apply(change(rules=SCOPES[0]))
    flows.settled()
    for table, at, clean_up, choice in steps:
        flows.apply(node.change_to(table, at))
        node.open_flows(choice)
        suspects = flows.suspects
        seen = [each for each in [*node.flows, *FOREIGN] if suspects.admit(each)]
        found = list(flows.stale(seen, LOCAL))
        assert not set(found) & set(FOREIGN)
        assert bool(found) <= flows.needed

        expected = {each for each in node.flows if node.in_order(each)}
        assert node.flows - set(found) == expected
        if clean_up != "none":
            node.flows -= set(found if clean_up == "full" else found[::2])
        if clean_up == "full":
            flows.settled()
