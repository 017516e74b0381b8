"""The forwarding table in real maps: of a few Services, of ten thousand, and with no room left."""

import dataclasses

import pytest

from backends.ebpf.driver.objects import private
from backends.ebpf.driver.table import TableMaps
from backends.ebpf.render.renderer import Renderer
from kproxy.core.addresses import Family
from kproxy.core.table import SharedRange, TableChanges, Target, Use, Via, Vip
from kproxy.ports.data_path import BackendError
from kproxy.run.loop.reconcile import Reconciler
from tests.support.core.things import networks
from tests.support.ebpf.entries import Entries, image_of
from tests.support.ebpf.fake_maps import FakeClaims
from tests.support.tables import between, node_rules, service_port, some_tables, table

pytestmark = pytest.mark.kernel

# A program that refers to the maps: those that none refers to are not there.
SOURCE = """
#include <linux/pkt_cls.h>
#include <kproxy/service_maps.h>

int ingress(struct __sk_buff *skb)
{
    struct frontend_key frontend = {};
    struct chunk_key chunk = {};
    struct member_key member = {};
    struct source_key source = {};
    struct network_key network = {};
    int rules = 0;

    return frontends.lookup(&frontend) && chunks.lookup(&chunk) && members.lookup(&member) &&
           source_ranges.lookup(&source) && unclaimed_networks.lookup(&network) &&
           node_port_networks.lookup(&network) && table_rules.lookup(&rules);
}
"""


VIP = {Family.IPV4: "203.0.113.1", Family.IPV6: "2001:db8::1"}
NETWORKS = {
    Family.IPV4: ("10.96.0.0/16", "10.96.7.0/24", "198.51.100.0/24", "0.0.0.0/1"),
    Family.IPV6: ("fd00:96::/112", "fd00:96::f0/124", "2001:db8:1::/48", "::/1"),
}


class Node:
    """The table maps of a family, private, and what writes to them as often as it is started."""

    def __init__(self, unit, family, sizes):
        self.objects = private([unit], sizes)
        self.family = family
        self.start()

    def start(self, sizes=None):
        maps = self.objects.maps
        sizes = sizes or {name: each.shape.max_entries for name, each in maps.items()}
        self.tables = TableMaps(maps, Renderer(self.family, sizes), FakeClaims())
        self.reconciler = Reconciler(self.tables, lambda: ())


@pytest.fixture(params=Family, ids=lambda family: family.value)
def node(request, sources):
    """A function that makes a node with maps of such sizes."""
    made = []

    def make(**sizes):
        unit = sources.unit(SOURCE, request.param)
        made.append(Node(unit, request.param, sizes))
        return made[-1]

    make.family = request.param
    yield make
    for each in made:
        each.objects.close()


def with_everything(family):
    """A table that has entries in every map."""
    cidr, hole, *ranges = networks(*NETWORKS[family])
    entry = service_port(family, 1, [1, 2, 3], affinity_s=60, node_port=30001)
    vip = Vip(Via.LOAD_BALANCER, VIP[family], 80)
    entry = dataclasses.replace(entry, frontends=(*entry.frontends, vip), sources=tuple(ranges))
    made = table(family, entry)
    shared = (SharedRange(hole, "somebody"),)
    rules = dataclasses.replace(made.rules, service_cidrs=(cidr,), shared_ranges=shared)
    return dataclasses.replace(made, rules=rules)


def test_the_kernel_holds_what_was_rendered_after_any_change(node):
    here = node()
    states = [*some_tables(node.family), with_everything(node.family)]
    before = None
    for state in [*states, *reversed(states)]:
        here.reconciler.apply(between(before, state))
        assert here.tables.observe() == image_of(state)
        assert here.reconciler.audit().written == 0
        before = state

    here.start()
    assert here.reconciler.apply(states[0].everything()).written == 0, "a restart"


def many(count, version=0):
    """So many Services with ten endpoints each, of IPv6."""
    ports, family = {}, Family.IPV6
    for n in range(count):
        entry = service_port(family, f"{n + 1:x}", [])
        hosts = range(10 * n + version + 1, 10 * n + version + 11)
        targets = tuple(
            Target(f"fd00:1::{host >> 16:x}:{host & 0xFFFF:x}", 8080, False) for host in hosts
        )
        ports[entry.key] = dataclasses.replace(
            entry, targets=targets, internal=Use.TARGETS, external=Use.TARGETS
        )
    addresses = {entry.frontends[0].address: True for entry in ports.values()}
    return TableChanges(family, node_rules(family), ports, addresses)


@pytest.mark.parametrize("node", [Family.IPV6], indirect=True)
def test_ten_thousand_services(node):
    """All of them, another endpoint for each at once, one alone, and a restart."""
    here = node()
    first, second = (many(10_000, version) for version in (0, 1))
    for changes in (first, second):
        here.reconciler.apply(changes)
    entries = Entries(node.family)
    entries.update(second)
    assert len(entries.image) > 30_000
    assert here.tables.observe() == entries.image

    key, entry = next(iter(first.service_ports.items()))
    for wanted in (entry, second.service_ports[key]):
        changes = TableChanges(node.family, service_ports={key: wanted})
        assert here.reconciler.apply(changes).written == 3, "two lists and a frontend"
    here.start()
    assert here.reconciler.apply(second).written == 0
    for _ in range(5):
        here.tables.tend()
    assert not here.reconciler.disturbed()


def limited(family, number):
    """A service port with one entry in each map but two members."""
    entry = service_port(family, number, [number, number + 1], affinity_s=60)
    vip = entry.frontends[0]._replace(via=Via.LOAD_BALANCER)
    ranges = networks(NETWORKS[family][2])
    return dataclasses.replace(entry, frontends=(vip,), sources=ranges)


@pytest.mark.parametrize("of", ["frontends", "chunks", "members", "source_ranges"])
def test_all_that_there_is_room_for_is_in_force(node, of):
    """The renderer believes in larger maps at first, as where memory is what lacks."""
    ports = [limited(node.family, number) for number in range(1, 33)]
    wanted = dataclasses.replace(table(node.family, *ports), cluster_ips=set())
    here = node(**{of: 16})
    here.start(sizes=dict.fromkeys(here.objects.maps, 4096))
    with pytest.raises(BackendError, match=f"the map {of} is full"):
        here.reconciler.apply(wanted.everything())
    here.reconciler.apply(TableChanges(node.family))
    here.reconciler.settle()
    assert len(here.reconciler.unheld) == (24 if of == "members" else 16)
    assert here.tables.observe() == image_of(without_unheld(wanted, here))

    here.start()
    here.reconciler.apply(wanted.everything())
    assert len(here.reconciler.unheld) == (25 if of == "members" else 17), "one place stays free"
    assert here.tables.observe() == image_of(without_unheld(wanted, here))


def without_unheld(wanted, here):
    unheld = here.reconciler.unheld
    held = {key: each for key, each in wanted.service_ports.items() if key not in unheld}
    return dataclasses.replace(wanted, service_ports=held)
